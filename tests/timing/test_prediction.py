import json
from pathlib import Path

from tests.inference.conftest import write_run
from tests.processes import run_script

SCRIPT = Path(__file__).parents[2] / "timing" / "prediction.py"


def test_both_find_the_same_objects(detector_cfg, scenes, tmp_path):
    cfg = detector_cfg("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    run = write_run(cfg, tmp_path / "run")
    options = ("--rounds", "1", "--json", str(tmp_path / "figures.json"))
    ran = run_script(SCRIPT, "--run", str(run), "--pictures", str(scenes / "val"), *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-2000:]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["pixels"] < 0.01 and figures["pictures"] == 4
    assert len(figures["costs"]) == 4 and all(row["ratio"] > 0 for row in figures["costs"])
