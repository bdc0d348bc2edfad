import json
from pathlib import Path

from tests.processes import run_script

SCRIPT = Path(__file__).parents[2] / "timing" / "annotations.py"


def test_it_prints_a_table_and_writes_the_same_figures(tmp_path):
    arguments = "--images 10 --objects 130 --rounds 1 --json".split()
    run = run_script(SCRIPT, *arguments, str(tmp_path / "rows.json"))
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) == 5 and all(row["CPU seconds"] > 0 and row[""] in run.stdout for row in rows)
