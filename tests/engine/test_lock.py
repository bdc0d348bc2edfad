import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from virtex_det.engine.lock import LOCKED, keep_locked, locked
from virtex_det.errors import UserError

HOLD = (
    "import sys, time; from pathlib import Path; from virtex_det.engine.lock import keep_locked\n"
)
HOLD += "keep_locked(Path(sys.argv[1])); print('locked', flush=True); time.sleep(600)"


@pytest.fixture
def holder(tmp_path):
    """Another process that works in the folder."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"locked\n"
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("virtex_det.engine.lock.PATIENCE", 0.0)


@pytest.mark.usefixtures("impatient")
def test_a_folder_in_which_another_process_works_is_refused_with_its_number(holder, tmp_path):
    with pytest.raises(
        UserError, match=rf"Another process works in {tmp_path}: process {holder.pid} on \S+\."
    ):
        keep_locked(tmp_path)
    holder.kill()
    holder.wait()
    keep_locked(tmp_path)


def test_the_workers_of_a_killed_run_are_waited_for(tmp_path, monkeypatch):
    # Its worker has the lock from it, and lives until its input ends.
    program = HOLD.replace(
        "time.sleep(600)", "import os; os.fork() and os.kill(os.getpid(), 9); sys.stdin.read()"
    )
    words = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)]
    run = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert run.wait() == -signal.SIGKILL
    waited = []

    def end_the_worker(seconds):
        if not waited:
            run.communicate()  # ends its input, and returns when its output is closed
        waited.append(seconds)

    # Not time.sleep itself, which a thread of an earlier test may call.
    clock = SimpleNamespace(sleep=end_the_worker, monotonic=time.monotonic)
    monkeypatch.setattr("virtex_det.engine.lock.time", clock)
    keep_locked(tmp_path)
    assert waited


def test_a_process_may_lock_its_folder_again(tmp_path):
    keep_locked(tmp_path)
    keep_locked(tmp_path / ".")


@pytest.mark.usefixtures("impatient")
def test_whoever_started_a_run_may_hold_the_lock_for_it(tmp_path, monkeypatch):
    with locked(tmp_path):
        with pytest.raises(UserError, match=f"process {os.getpid()} "):
            keep_locked(tmp_path)
        monkeypatch.setenv(LOCKED, str(tmp_path))
        keep_locked(tmp_path)
