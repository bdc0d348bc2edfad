import json
from pathlib import Path

from tests.processes import run_script

SCRIPT = Path(__file__).parents[2] / "timing" / "loading.py"


def test_it_prints_a_table_and_writes_the_same_figures(tmp_path):
    arguments = ["--rounds", "1", "--short-edge", "64", "--json", str(tmp_path / "loading.json")]
    run = run_script(SCRIPT, *arguments)
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    rows = json.loads((tmp_path / "loading.json").read_text())["mappers"]
    assert [row["speed-up"] for row in rows][0] == 1 and len(rows) == 4
    assert all(row["mapper"] in run.stdout and row["ms/image"] > 0 for row in rows)
