import argparse
import errno
import logging
import re
import shlex
import subprocess
import sys

import pytest
import torch
from detectron2.utils import comm

from virtex_det.engine import launch, with_one_screen_errors
from virtex_det.engine.processes import launch_processes
from virtex_det.errors import UserError


def fail() -> None:
    raise UserError("found this; expected that; do so")


def test_a_users_mistake_ends_with_code_1_and_one_message(capsys):
    with pytest.raises(SystemExit) as stopped:
        with_one_screen_errors(fail)
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "\nerror: found this; expected that; do so\n"


def test_a_name_in_a_message_does_not_act_on_the_terminal(capsys):
    def name_it() -> None:
        raise UserError("no class \x1b[2J\x1b]0;x\x07 \u202e \udc80\nset it")

    with pytest.raises(SystemExit):
        with_one_screen_errors(name_it)
    assert (
        capsys.readouterr().err
        == "\nerror: no class \\x1b[2J\\x1b]0;x\\x07 \\u202e \\udc80\nset it\n"
    )


def test_an_error_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        with_one_screen_errors(lambda: 1 / 0)


def test_a_place_that_takes_no_file_is_one_message(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        with_one_screen_errors((tmp_path / "file" / "folder").mkdir)
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith(
        f"\nerror: Cannot read or write {tmp_path / 'file' / 'folder'}: Not a directory."
    )


def test_a_file_of_ours_that_is_missing_keeps_its_traceback(tmp_path):
    with pytest.raises(FileNotFoundError):
        with_one_screen_errors((tmp_path / "none").read_text)


def test_a_full_disk_while_training_is_logged_without_a_traceback():
    logger = logging.getLogger("detectron2.engine.train_loop")
    with_one_screen_errors(lambda: None)
    full = OSError(errno.ENOSPC, "No space left on device")
    record = logger.makeRecord(
        logger.name, logging.ERROR, "", 0, "Exception", (), (OSError, full, None)
    )
    assert logger.filter(record) and record.exc_info is None


def test_training_logs_a_users_mistake_without_traceback(caplog):
    logger = logging.getLogger("detectron2.engine.train_loop")
    with pytest.raises(SystemExit):
        with_one_screen_errors(fail)
    try:
        fail()
    except UserError:
        record = logger.makeRecord(
            logger.name, logging.ERROR, "", 0, "Exception", (), sys.exc_info()
        )
    assert logger.filter(record)
    assert record.exc_info is None


@pytest.mark.skipif(
    torch.cuda.device_count() >= 2,
    reason="this machine has the GPUs that the test asks for in vain",
)
def test_more_gpus_than_there_are_is_an_error(capsys):
    with pytest.raises(SystemExit):
        launch(
            lambda args: None,
            argparse.Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto"),
        )
    assert "--num-gpus is 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gpus", "machines", "rank"),
    [(-1, 1, 0), (1, 0, 0), (1, 1, 1), (1, 2, 5), (1, 2, -1), (0, 2, 0)],
)
def test_processes_and_machines_that_cannot_be_are_an_error_and_nothing_waits(
    capsys, gpus, machines, rank
):
    with pytest.raises(SystemExit):
        args = argparse.Namespace(
            num_gpus=gpus, num_machines=machines, machine_rank=rank, dist_url="auto"
        )
        launch(lambda args: None, args)
    assert re.search(rf"--num-machines (is )?{machines}\b", capsys.readouterr().err)


def _fail_in_a_process(args: argparse.Namespace) -> None:
    fail()


@pytest.mark.slow
def test_a_users_mistake_in_one_of_several_processes_is_no_traceback_either(monkeypatch, capfd):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SystemExit) as stopped:
        args = argparse.Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")
        launch(_fail_in_a_process, args)
    assert stopped.value.code == 1
    printed = capfd.readouterr().err
    assert "error: found this" in printed
    assert "Traceback" not in printed


def _fail_alone() -> None:
    comm.synchronize()
    if comm.get_rank() == 1:
        fail()
    comm.synchronize()


@pytest.mark.slow
def test_a_mistake_that_one_process_alone_meets_is_the_only_message(capfd):
    with pytest.raises(SystemExit) as stopped:
        launch_processes(_fail_alone, processes=2)
    assert stopped.value.code == 1
    printed = capfd.readouterr().err
    assert printed.count("error: ") == 1 and "error: found this" in printed
    assert "Traceback" not in printed and "peer" not in printed


def test_without_gpus_the_command_runs_in_this_process():
    seen = []
    launch(
        seen.append, argparse.Namespace(num_gpus=1, num_machines=1, machine_rank=0, dist_url="auto")
    )
    assert len(seen) == 1


def test_an_interruption_is_no_traceback(capsys):
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        with_one_screen_errors(interrupt)
    assert stopped.value.code == 130
    assert "interrupted" in capsys.readouterr().err


def test_output_that_is_no_longer_read_ends_without_a_traceback():
    program = (
        "from virtex_det.engine import with_one_screen_errors\n"
        "with_one_screen_errors(lambda: print('line\\n' * 100_000))"
    )
    command = f"{sys.executable} -W ignore -c {shlex.quote(program)} | head -1"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert ended.stdout == "line\n" and "Error" not in ended.stderr


_GROUP_OF_ONE = """
import hashlib, sys, threading
import torch
import virtex_det.engine

def work():
    size = len(hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000))
    print("ended after", size, "bytes", flush=True)

store = "file://" + sys.argv[1]
torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
threading.Thread(target=work, daemon=True).start()
"""


@pytest.mark.slow
def test_a_thread_that_frees_what_a_group_has_sent_ends_before_python_does(tmp_path):
    words = [sys.executable, "-W", "ignore", "-c", _GROUP_OF_ONE, str(tmp_path / "store")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "ended after 32 bytes\n"), done.stderr


_SIGNALLED_EARLY = """
import argparse, os, signal, sys, time
import torch
from virtex_det.engine import launch

if __name__ == "__mp_main__":  # a process that has just been started
    os.kill(os.getppid() if sys.argv[1] == "parent" else os.getpid(), signal.SIGTERM)
    time.sleep(600)
elif __name__ == "__main__":
    torch.cuda.device_count = lambda: 2
    args = argparse.Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")
    launch(print, args)
"""


@pytest.mark.slow
@pytest.mark.parametrize("receiver", ["parent", "child"])
def test_a_signal_before_the_processes_can_obey_it_is_called_by_its_name(tmp_path, receiver):
    program = tmp_path / "program.py"
    program.write_text(_SIGNALLED_EARLY)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", program, receiver], capture_output=True, text=True
    )
    assert ended.returncode == 143, ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert (
        last.startswith("interrupted by SIGTERM; what was saved stays. To go on: python ")
        and "--resume" in last
    )
    assert "SIGKILL" not in ended.stderr and "Traceback" not in ended.stderr
