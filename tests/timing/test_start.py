"""The start, timed beside Detectron2's own."""

import importlib.util
import json
from pathlib import Path

import pytest

from tests.processes import run_script

SCRIPT = Path(__file__).parents[2] / "timing" / "start.py"


def test_the_ratio_is_that_of_pairs_and_not_of_medians():
    spec = importlib.util.spec_from_file_location("timing_start", SCRIPT)
    timing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(timing)
    stock = [{"clock": seconds, "cpu": seconds} for seconds in (1.0, 10.0, 4.0)]
    ours = [{"clock": seconds, "cpu": 2 * seconds} for seconds in (0.5, 9.0, 4.0)]
    lines = timing.report({"stock": stock, "ours": ours}).splitlines()
    assert lines[0].split() == ["stock", "4.00", "s,", "CPU", "4.00", "s"]
    assert lines[2].endswith("clock: 0.90 (0.50 to 1.00, 3 pairs)")
    assert lines[3].endswith("cpu  : 1.80 (1.00 to 2.00, 3 pairs)")


@pytest.mark.slow
def test_it_times_both_to_the_end_of_their_first_iteration(tmp_path):
    run = run_script(SCRIPT, "--pairs", 1, "--json", tmp_path / "start.json", cwd=SCRIPT.parents[1])
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    figures = json.loads((tmp_path / "start.json").read_text())
    assert all(times["cpu"] > 0 and times["clock"] > 0 for [times] in figures.values())
    assert "ours / stock, clock:" in run.stdout
