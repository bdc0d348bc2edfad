"""The documented commands on real COCO, VOC and LVIS images, end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SHORT = ("SOLVER.MAX_ITER", 2, "SOLVER.WARMUP_ITERS", 1, "TEST.PRECISE_BN.NUM_ITER", 1)


@pytest.fixture
def run(samples, tmp_path, request):
    """Runs a tool from the repository's root on the samples; returns its output."""

    def run(tool: str, *words: object) -> str:
        command = [sys.executable, f"tools/{tool}.py", *map(str, words)]
        environment = os.environ | {"DETECTRON2_DATASETS": str(samples), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=request.config.rootpath, env=environment)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    return run


def record(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_real_captions_in_real_box_and_mask_ap_out(run, tmp_path):
    vocabulary, pretrained, detector = tmp_path / "vocabulary.model", tmp_path / "pretrain", tmp_path / "segm"
    run("build_vocabulary", "--dataset", "coco_mini_train_captions", "--vocab-size", 1000, "--output", vocabulary)
    smoke = "configs/pretrain/coco_mini_bicaptioning.yaml"
    run(
        *("train_net", "--config-file", smoke, "INPUT.CAPTION.TOKENIZER", vocabulary, "OUTPUT_DIR", pretrained),
        *("SOLVER.MAX_ITER", 3, "SOLVER.WARMUP_ITERS", 1, "SOLVER.IMS_PER_BATCH", 4),
    )
    run(
        *("train_net", "--config-file", "configs/detectron2/coco_mini_segm_smoke.yaml", "OUTPUT_DIR", detector),
        *("MODEL.WEIGHTS", pretrained / "model_final.pth", *SHORT),
    )
    found = record(detector)
    assert found["dataset"] == "coco_mini_val"
    assert found["weights"]["format"] == "virtex_det_pretraining"
    assert {"AP", "AP50"} <= set(found["metrics"]["bbox"]) & set(found["metrics"]["segm"])
    assert len(json.loads((detector / "load_report.json").read_text())["loaded"]) == 120


def test_faster_rcnn_c4_trains_and_evaluates_on_real_voc(run, tmp_path):
    config = "configs/detectron2/voc_mini_det_smoke.yaml"
    run("train_net", "--config-file", config, "OUTPUT_DIR", tmp_path, *SHORT)
    assert {"AP", "AP50", "AP75"} <= set(record(tmp_path)["metrics"]["bbox"])


def test_mask_rcnn_evaluates_on_real_lvis_without_training_data_at_hand(run, tmp_path):
    config = "configs/detectron2/lvis_100_segm_smoke.yaml"
    run("train_net", "--config-file", config, "OUTPUT_DIR", tmp_path, *SHORT)
    first = record(tmp_path)
    run("train_net", "--config-file", config, "--eval-only", "--resume", "OUTPUT_DIR", tmp_path)
    assert {"AP", "APr", "APc", "APf"} <= set(first["metrics"]["segm"])
    assert record(tmp_path)["metrics"] == first["metrics"]
