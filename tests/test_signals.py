"""Processes that work for another one."""

import subprocess
import sys

_BORN_LATE = """
import os, time
from virtex_det.signals import serve_parent

parent = os.getpid()
if os.fork():
    os._exit(0)  # as by a kill, before the child has come to anything
while os.getppid() == parent:
    time.sleep(0.01)
serve_parent(parent, 0)
print("outlives its parent", flush=True)
"""


def test_a_worker_whose_parent_was_killed_before_it_began_ends(tmp_path):
    words = [sys.executable, "-W", "ignore", "-c", _BORN_LATE]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=600
    )  # waits for the child's output, too
    assert (done.stdout, done.stderr) == ("", "")
