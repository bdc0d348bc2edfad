import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, torch
from virtex_det.engine.performance import tune_process
if {tuned}: assert tune_process()
def work():
    for _ in range(20):
        torch.empty(2**24).fill_(1.0)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(tuned: bool) -> int:
    code = COUNT_FAULTS.format(tuned=tuned)
    return int(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
    )


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_large_tensors_come_from_memory_that_the_process_kept():
    assert page_faults(tuned=True) < page_faults(tuned=False) / 10
