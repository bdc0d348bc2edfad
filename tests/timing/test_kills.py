from pathlib import Path

import pytest

from tests.processes import run_script

SCRIPT = Path(__file__).parents[2] / "timing" / "kills.py"


@pytest.mark.slow
def test_killed_and_resumed_runs_are_those_that_were_not(tmp_path: Path) -> None:
    words = ["--kills", "4", "--kinds", "bicaptioning", "mask_rcnn"]
    run = run_script(SCRIPT, *words)
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    assert "| all          |       4 |" in run.stdout
