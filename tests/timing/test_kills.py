import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "timing" / "kills.py"


@pytest.mark.slow
def test_killed_and_resumed_runs_are_those_that_were_not(tmp_path: Path) -> None:
    words = ["--kills", "4", "--kinds", "bicaptioning", "mask_rcnn"]
    # Not forked from the tests' server: the run's own workers would be forked from it, too, and
    # would end when it ends.
    run = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    assert "| all          |       4 |" in run.stdout
