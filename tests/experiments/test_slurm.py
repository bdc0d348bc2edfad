import os
import sys
import time
from pathlib import Path

import pytest

from tests.experiments.fake_runs import FINISH, fake_run, wait_until
from virtex_det.errors import UserError
from virtex_det.experiments.local import LocalLauncher
from virtex_det.experiments.runs import train_all
from virtex_det.experiments.slurm import JOB_ID, Resources, SlurmLauncher

pytest.importorskip("submitit", reason="submitit is not installed; it is needed for --slurm alone")
CPU = Resources(gpus=0, cpus=1)

# The programs that submitit calls: sbatch runs a script in the background and keeps it, and sacct
# prints its state.
SBATCH = """
state = folder / "next"
# submitit remembers ended jobs by their numbers.
number = int(state.read_text()) if state.exists() else time.time_ns() // 1000
state.write_text(str(number + 1))
script = pathlib.Path(sys.argv[-1]).read_text()
(folder / f"{number}.sh").write_text(script)
output = re.search(r"--output=(\\S+)", script).group(1).replace("%j", str(number))
job = subprocess.Popen(
    ["bash", "-c", f"bash {folder}/{number}.sh; echo $? > {folder}/{number}.rc"],
    env=os.environ | {"SLURM_JOB_ID": str(number)}, start_new_session=True,
    stdout=open(output, "a"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
)
print(f"Submitted batch job {number}")
"""
SRUN = """
command = sys.argv[1:]
while command[0].startswith("--"):
    command = command[1 if "=" in command[0] or command[0].startswith("--unbuffered") else 2:]
os.execvp(command[0], command)
"""
SACCT = """
print("JobID|State|NodeList")
for number in (word for word in sys.argv if word.isdigit()):
    rc = folder / f"{number}.rc"
    state = "RUNNING"
    if rc.exists():
        state = "COMPLETED" if rc.read_text().strip() == "0" else "OUT_OF_MEMORY"
    print(f"{number}|{state}|here")
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """A folder of commands that behave like Slurm's, first on the path; it keeps the scripts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT}.items():
        head = f"#!{sys.executable}\nimport os, pathlib, re, subprocess, sys, time\n"
        head += f"folder = pathlib.Path({str(folder)!r})"
        (folder / name).write_text(head + text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def wait_for(job) -> None:
    deadline = time.monotonic() + 300
    while job.is_running() and time.monotonic() < deadline:
        time.sleep(0.1)


def test_runs_are_jobs_and_a_run_that_needs_weights_waits_for_them(tmp_path):
    weights = fake_run(tmp_path / "weights")
    cell = fake_run(
        tmp_path / "cell",
        "assert pathlib.Path('../weights/model_final.pth').exists()",
        FINISH,
        after=weights,
    )
    train_all([cell, weights], SlurmLauncher(tmp_path / "slurm", CPU, cluster="local"))
    assert (tmp_path / "cell" / "model_final.pth").exists() and list(
        (tmp_path / "slurm").glob("*_log.out")
    )


def test_a_job_that_fails_is_named_with_the_end_of_its_log_and_the_others_go_on(tmp_path):
    runs = [
        fake_run(tmp_path / "bad", "print('out of luck')", "sys.exit(2)"),
        fake_run(tmp_path / "good"),
    ]
    with pytest.raises(UserError, match=r"1 run failed(?s:.*)bad: Slurm job \d+(?s:.*)out of luck"):
        train_all(runs, SlurmLauncher(tmp_path / "slurm", CPU, cluster="local"))
    assert (tmp_path / "good" / "model_final.pth").exists()


def test_a_job_asks_slurm_for_what_the_command_line_says(tmp_path, slurm):
    resources = Resources(
        "gpu-long", gpus=2, cpus=16, minutes=90, memory_gb=64, more={"account": "vision"}
    )
    wait_for(SlurmLauncher(tmp_path / "slurm", resources).start(fake_run(tmp_path / "run")))
    script = next(slurm.glob("*.sh")).read_text()
    for option in (
        "partition=gpu-long",
        "gpus-per-node=2",
        "cpus-per-task=16",
        "time=90",
        "mem=64GB",
        "account=vision",
    ):
        assert f"#SBATCH --{option}" in script
    assert (tmp_path / "run" / "model_final.pth").exists()


def test_a_second_call_takes_up_a_job_that_has_not_ended(tmp_path, slurm, capsys):
    class Later(SlurmLauncher):
        def start(self, run):
            job = super().start(run)
            (tmp_path / "taken up").touch()
            return job

    taken_up = wait_until("pathlib.Path('../taken up').exists()")
    run = fake_run(tmp_path / "run", taken_up, "print('once')", FINISH)
    SlurmLauncher(tmp_path / "slurm", CPU).start(run)
    train_all([run], Later(tmp_path / "slurm", CPU))
    assert "continues as Slurm job" in capsys.readouterr().out
    assert (tmp_path / "run" / "stdout.txt").read_text() == "once\n"
    assert len(list(slurm.glob("*.sh"))) == 1


def test_a_folder_in_which_a_job_works_is_not_worked_in_here(tmp_path, slurm, monkeypatch):
    begin, refused = (
        "pathlib.Path('begun').touch()",
        wait_until("pathlib.Path('../refused').exists()"),
    )
    run = fake_run(tmp_path / "run", begin, refused, FINISH)
    job = SlurmLauncher(tmp_path / "slurm", CPU).start(run)
    while not (tmp_path / "run" / "begun").exists():
        assert job.is_running()
        time.sleep(0.05)
    monkeypatch.setattr("virtex_det.engine.lock.PATIENCE", 0.0)
    with pytest.raises(UserError, match="Another process works in"):
        LocalLauncher(1).start(run)
    (tmp_path / "refused").touch()
    wait_for(job)


def test_a_job_does_not_work_where_a_process_of_this_machine_does(tmp_path, slurm):
    here = LocalLauncher(1).start(fake_run(tmp_path / "run", "time.sleep(600)"))
    try:
        job = SlurmLauncher(tmp_path / "slurm", CPU).start(fake_run(tmp_path / "run"))
        wait_for(job)
        assert "Slurm job" in job.failure() and not (tmp_path / "run" / "model_final.pth").exists()
        assert "Another process works in" in job.job.paths.stdout.read_text()
    finally:
        here.let_go()
        here.await_end()


def test_a_run_whose_job_was_lost_is_submitted_again(tmp_path, slurm):
    run = fake_run(tmp_path / "run")
    run.folder.mkdir()
    (run.folder / JOB_ID).write_text("77")
    (slurm / "77.rc").write_text("1")
    train_all([run], SlurmLauncher(tmp_path / "slurm", CPU))
    assert (run.folder / JOB_ID).read_text() != "77" and (run.folder / "model_final.pth").exists()


@pytest.mark.slow
def test_a_job_that_slurm_ended_without_a_word_is_named_with_its_state(tmp_path, slurm):
    launcher = SlurmLauncher(tmp_path / "slurm", CPU)
    job = launcher.start(fake_run(tmp_path / "run", "os.kill(os.getppid(), 9)", "time.sleep(600)"))
    deadline = time.monotonic() + 300
    while not job.job.done(force_check=True) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert "ended as OUT_OF_MEMORY" in job.failure()


def test_letting_go_of_a_job_leaves_it_to_slurm_and_says_so(tmp_path, slurm, capsys):
    let_go = wait_until("pathlib.Path('../let go').exists()")
    job = SlurmLauncher(tmp_path / "slurm", CPU).start(fake_run(tmp_path / "run", let_go, FINISH))
    job.let_go()
    job.await_end()
    assert f"scancel {job.job.job_id}" in capsys.readouterr().out
    (tmp_path / "let go").touch()
    wait_for(job)
    assert (tmp_path / "run" / "model_final.pth").exists()


def test_without_slurm_there_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="Slurm cannot be reached"):
        SlurmLauncher(tmp_path / "slurm", CPU)


def test_without_submitit_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match="pip install"):
        SlurmLauncher(tmp_path / "slurm", CPU)


@pytest.mark.parametrize(
    ("folder", "resources"),
    [
        ("a\ntouch pwned\n#", CPU),
        ("a", CPU._replace(partition="gpu\ntouch pwned")),
        ("a", CPU._replace(more={"comment": "x\rtouch pwned"})),
        ("a", CPU._replace(more={"x\ntouch pwned\n#": "1"})),
    ],
)
def test_no_name_becomes_a_command_of_a_jobs_script(folder, resources, tmp_path):
    with pytest.raises(UserError, match="allows no line feeds"):
        SlurmLauncher(tmp_path / folder, resources, cluster="local")
