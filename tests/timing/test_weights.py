import json
from pathlib import Path

import pytest

from tests.processes import run_script

SCRIPT = Path(__file__).parents[2] / "timing" / "weights.py"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_it_prints_a_table_and_writes_the_same_figures(tmp_path):
    arguments = ["--rounds", "1", "--megabytes", "1", "--json", str(tmp_path / "weights.json")]
    run = run_script(SCRIPT, *arguments)
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    rows = json.loads((tmp_path / "weights.json").read_text())["loaders"]
    assert rows[1]["time ratio"] == 1 and all(
        row["loader"] in run.stdout and row["seconds"] > 0 for row in rows
    )
