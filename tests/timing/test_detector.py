import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import run_script

SCRIPT = Path(__file__).parents[2] / "timing" / "detector.py"
SMALL = (
    "--rounds 1 --image-size 64 64 MODEL.DEVICE cpu "
    "MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64 MODEL.FPN.OUT_CHANNELS 16 "
    "MODEL.ROI_BOX_HEAD.FC_DIM 32 MODEL.ROI_MASK_HEAD.CONV_DIM 16 "
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 32 MODEL.RPN.POST_NMS_TOPK_TEST 50"
).split()


def run(tmp_path: Path, *opts: str, allocator: bool = False) -> tuple[dict, str]:
    arguments = ["--json", str(tmp_path / "detector.json"), *SMALL, *opts]
    if allocator:
        arguments.insert(0, "--allocator")
        # Not forked: the script's own processes import it as __main__.
        command = [sys.executable, SCRIPT, *arguments]
        ran = subprocess.run(command, capture_output=True, text=True)
    else:
        ran = run_script(SCRIPT, *arguments)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-2000:]
    return json.loads((tmp_path / "detector.json").read_text()), ran.stdout


@pytest.mark.parametrize("norm", ["SyncBN", "FrozenBN"])
def test_all_detectors_do_the_same_work(tmp_path: Path, norm: str) -> None:
    figures, table = run(tmp_path, "MODEL.RESNETS.NORM", norm)
    stock, same, bf16 = figures["differences"]
    assert stock["any loss"] == 0 and same["any loss"] < 1e-4 < bf16["any loss"]
    assert same["total loss"] < 1e-4 and bf16["total loss"] < 0.1
    assert same["score"] < 1e-5 and same["pixels to a box"] < 0.1
    assert stock["detections"] == same["detections"] > 20
    assert len(figures["costs"]) == 6
    assert all(
        row["detector"] in table and row["CPU s"] > 0 and row["wall s"] > 0
        for row in figures["costs"]
    )
    assert all(row["CPU ratio"] == 1 for row in figures["costs"] if row["detector"] == "detectron2")


@pytest.mark.slow
def test_detectors_run_in_processes_of_their_own(tmp_path: Path) -> None:
    figures, table = run(tmp_path, allocator=True)
    names = [
        "detectron2",
        "virtex_det",
        "virtex_det + allocator",
        "virtex_det, bfloat16 + allocator",
    ]
    assert [row["detector"] for row in figures["costs"]] == 2 * names
    assert all(
        row["detector"] in table and row["CPU s"] > 0 and row["page faults"] >= 0
        for row in figures["costs"]
    )


def test_different_losses_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("detector", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "LOSS_TOLERANCE", 0.0)
    monkeypatch.setattr(sys, "argv", ["detector.py", *SMALL])
    with pytest.raises(module.UserError, match="differ by more than"):
        module.main(module.parse_args())
