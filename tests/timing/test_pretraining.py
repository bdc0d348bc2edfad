import json
from pathlib import Path

from tests.processes import run_script

SCRIPT = Path(__file__).parents[2] / "timing" / "pretraining.py"


def test_every_method_is_timed_beside_bicaptioning(tmp_path: Path) -> None:
    arguments = "--scale scenes --images 3 --rounds 1 --captions 2 --json".split()
    run = run_script(SCRIPT, *arguments, str(tmp_path / "figures.json"))
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    rows = {
        row.pop("method"): row
        for row in json.loads((tmp_path / "figures.json").read_text())["methods"]
    }
    assert list(rows)[0] == "bicaptioning" and len(rows) == 11
    assert all(method in run.stdout and min(row.values()) > 0 for method, row in rows.items())
    assert rows["bicaptioning"]["step ratio"] == rows["bicaptioning"]["loading ratio"] == 1
