import os
import signal
import threading
import time

import pytest
from detectron2.utils import comm

from tests.processes import launch_processes
from virtex_det.engine.watchdog import watching_each_other


def _stop_one(stopped: int) -> None:
    with watching_each_other(0.1):
        comm.synchronize()
        if comm.get_rank() == stopped:
            os.kill(os.getpid(), signal.SIGSTOP)
        comm.synchronize()


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_process_that_is_stopped_is_named_and_not_waited_for_without_end(capfd, stopped):
    started = time.monotonic()
    with pytest.raises((SystemExit, Exception)):
        launch_processes(_stop_one, stopped, processes=2)
    assert time.monotonic() - started < 900  # PyTorch waits for 1,800 s
    printed = capfd.readouterr().err
    assert f"error: process {stopped} (number " in printed and "Traceback" not in printed


def _work_for_long() -> None:
    with watching_each_other(0.2), watching_each_other(0.2):
        assert sum(thread.name == "watchdog" for thread in threading.enumerate()) == 1
        time.sleep(14 * comm.get_rank())


@pytest.mark.slow
def test_a_process_that_works_for_long_is_not_taken_for_lost():
    launch_processes(_work_for_long, processes=2)


def test_one_process_watches_nobody():
    with watching_each_other(10):
        pass
