import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.experiments.fake_runs import FINISH, FakeRun, fake_run, wait_until
from virtex_det.errors import UserError
from virtex_det.experiments.local import LocalLauncher, visible_gpus
from virtex_det.experiments.runs import train_all
from virtex_det.signals import Stopped


def wait_for(job) -> None:
    deadline = time.monotonic() + 300
    while job.is_running() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_runs_at_once_share_the_cores(tmp_path):
    names = ("OMP_NUM_THREADS", "LOKY_MAX_CPU_COUNT")
    job = LocalLauncher(2).start(fake_run(tmp_path, *(f"print(os.environ['{n}'])" for n in names)))
    wait_for(job)
    assert (tmp_path / "stdout.txt").read_text() == 2 * f"{max(os.cpu_count() // 2, 1)}\n"


def test_runs_at_once_share_the_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    launcher = LocalLauncher(gpus_per_run=2)
    assert launcher.at_once == 2
    seen = "print(os.environ['CUDA_VISIBLE_DEVICES'])"
    both = wait_until(
        "pathlib.Path('../0/stdout.txt').exists() and pathlib.Path('../1/stdout.txt').exists()"
    )
    for job in [launcher.start(fake_run(tmp_path / str(n), seen, both)) for n in range(2)]:
        wait_for(job)
    assert [(tmp_path / str(n) / "stdout.txt").read_text() for n in range(2)] == ["0,1\n", "2,3\n"]


def test_a_share_is_free_again_when_its_run_has_ended(tmp_path):
    launcher = LocalLauncher(1)
    for number in range(2):
        job = launcher.start(fake_run(tmp_path / str(number)))
        wait_for(job)
        assert job.slot == 0


@pytest.mark.parametrize("asked", [0, 2])
def test_a_run_has_no_more_processes_than_there_are_gpus(tmp_path, monkeypatch, asked):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    given = []
    monkeypatch.setattr(FakeRun, "command", lambda run, gpus=1: given.append(gpus) or ["true"])
    wait_for(LocalLauncher(1, gpus_per_run=asked).start(fake_run(tmp_path)))
    assert given == [1]


def test_gpus_are_those_that_the_user_shows(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert visible_gpus() == ["5", "7"]


def test_two_processes_do_not_work_in_one_folder(tmp_path):
    job = LocalLauncher(1).start(fake_run(tmp_path, "time.sleep(600)"))
    try:
        with pytest.raises(UserError, match="Another process works in"):
            LocalLauncher(1).start(fake_run(tmp_path))
    finally:
        job.let_go()
        job.await_end()
    train_all([fake_run(tmp_path, FINISH)], LocalLauncher(1))


def test_a_run_knows_that_its_folder_is_locked_for_it(tmp_path):
    job = LocalLauncher(1).start(fake_run(tmp_path, "print(os.environ['VIRTEX_DET_LOCKED'])"))
    wait_for(job)
    assert (tmp_path / "stdout.txt").read_text() == f"{tmp_path}\n"


def test_runs_do_not_outlive_who_started_them_even_where_that_is_killed(tmp_path):
    program = "import sys, time; from pathlib import Path\n"
    program += "from tests.experiments.fake_runs import fake_run\n"
    program += "from virtex_det.experiments.local import LocalLauncher\n"
    program += "job = LocalLauncher(1).start(fake_run(Path(sys.argv[1]), 'time.sleep(600)'))\n"
    program += "print(job.process.pid, flush=True); time.sleep(600)"
    runner = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)], stdout=subprocess.PIPE
    )
    run = int(runner.stdout.readline())
    runner.kill()
    runner.wait()
    deadline = time.monotonic() + 300
    while Path(f"/proc/{run}").exists() and " Z " not in Path(f"/proc/{run}/stat").read_text():
        assert time.monotonic() < deadline, "the run outlives its runner"
        time.sleep(0.05)


def test_all_runs_are_asked_to_end_before_any_is_waited_for(tmp_path, monkeypatch):
    # Each ends only when the other one was asked to, too.
    folders = [tmp_path / "one", tmp_path / "other"]
    begin = "import signal; signal.signal(signal.SIGTERM, lambda *_: pathlib.Path('asked').touch())"
    begin += "; pathlib.Path('begun').touch()"
    wait = "while not all(pathlib.Path(f'../{name}/asked').exists() for name in ('one', 'other')): "
    runs = [fake_run(folder, begin, f"{wait}time.sleep(0.02)") for folder in folders]

    class Patience:
        """Stands in for the module ``time``: when both have begun, a signal comes."""

        @staticmethod
        def sleep(seconds):
            if all((folder / "begun").exists() for folder in folders):
                raise Stopped(signal.SIGTERM)
            time.sleep(0.02)

        monotonic = time.monotonic

    monkeypatch.setattr("virtex_det.experiments.runs.time", Patience)
    with pytest.raises(Stopped):
        train_all(runs, LocalLauncher(2))
    assert all((folder / "asked").exists() for folder in folders)
