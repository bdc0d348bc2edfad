import json
from pathlib import Path

import pytest

from tests.processes import run_script

SCRIPT = Path(__file__).parents[2] / "timing" / "evaluation.py"
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="memory is read from /proc"
)


def figures(tmp_path: Path, *arguments: str) -> tuple[list[dict], str]:
    run = run_script(SCRIPT, "--small", "--json", str(tmp_path / "evaluation.json"), *arguments)
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    return json.loads((tmp_path / "evaluation.json").read_text())["cases"], run.stdout


@pytest.mark.slow
@needs_proc
def test_it_prints_a_table_and_writes_the_same_figures(tmp_path):
    rows, printed = figures(tmp_path, "--only", "numbers: LVIS mask")
    assert [row["evaluator"] for row in rows] == ["Detectron2's evaluator", "virtex_det"]
    assert rows[0]["speed-up"] == rows[0]["memory ratio"] == 1
    assert all(
        row["CPU s"] > 0 and row["peak MB"] > 0 and row["evaluator"] in printed for row in rows
    )
    assert rows[1]["difference"] < 1e-7


@pytest.mark.slow
@needs_proc
def test_from_a_networks_output_two_processes_find_the_same_numbers(tmp_path):
    rows, _ = figures(tmp_path, "--only", "output")
    assert len(rows) == 2 and rows[1]["difference"] < 0.01
