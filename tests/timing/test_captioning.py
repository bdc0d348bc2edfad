import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.processes import run_script

SCRIPT = Path(__file__).parents[2] / "timing" / "captioning.py"
SMALL = ("--small", "--rounds", "1", "--device", "cpu")


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("captioning", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_formulations_return_the_same(tmp_path: Path) -> None:
    arguments = [*SMALL, "--json", str(tmp_path / "captioning.json")]
    run = run_script(SCRIPT, *arguments)
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    rows = json.loads((tmp_path / "captioning.json").read_text())["jobs"]
    assert [row["job"].split(",")[0] for row in rows] == [
        *4 * ["decoding"],
        "training",
        "classification loss",
    ]
    assert all(
        row["job"] in run.stdout and row["plain alone"] > 0 and row["difference"] < 1e-5
        for row in rows
    )
    assert all(row["plain whole"] > row["plain alone"] for row in rows[:-1])


@pytest.mark.parametrize(
    ("job", "broken"),
    [
        ("decoding", "decode"),
        ("training", "caption_plainly"),
        ("classification", "classify_plainly"),
    ],
)
def test_other_results_are_an_error(monkeypatch: pytest.MonkeyPatch, job: str, broken: str) -> None:
    script = load_script()
    right = getattr(script, broken)
    monkeypatch.setattr(script, broken, lambda *arguments: twice(right(*arguments)))
    monkeypatch.setattr(sys, "argv", ["captioning.py", *SMALL, "--only", job])
    with pytest.raises(script.UserError, match="differ by more than"):
        script.main(script.parse_args())


def twice(result):
    if isinstance(result, dict):
        return {name: 2 * value for name, value in result.items()}
    return 2 * result if not isinstance(result, tuple) else tuple(2 * value for value in result)
