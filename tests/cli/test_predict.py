import json
import sys

import pytest
import torch

from tests.inference.conftest import write_run
from virtex_det.cli.predict import main
from virtex_det.errors import UserError


@pytest.fixture
def run(detector_cfg, tmp_path):
    return write_run(detector_cfg(), tmp_path / "detector")


def predict(*words):
    main([str(word) for word in words])


def test_a_run_and_a_folder_become_detections_and_pictures(run, scenes, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    words = (scenes / "val", tmp_path / "broken.jpg", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    predict("--run", run, "--output", tmp_path / "out", "--threshold", 0, *words)
    entries = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert f"{len(entries)} detections in 4 pictures, 1 skipped." in capsys.readouterr().out
    assert entries and len(list((tmp_path / "out" / "pictures").iterdir())) == 4


def test_a_threshold_below_the_models_own_is_reached(detector_cfg, scenes, tmp_path):
    run = write_run(detector_cfg("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.99), tmp_path / "detector")
    words = ("--run", run, scenes / "val", "--no-pictures", "--output")
    predict(*words, tmp_path / "own")
    predict(*words, tmp_path / "all", "--threshold", 0)
    own, everything = (
        json.loads((tmp_path / name / "detections.json").read_text()) for name in ("own", "all")
    )
    assert not own and everything
    assert not (tmp_path / "all" / "pictures").exists()


def test_weights_come_with_their_config(run, scenes, tmp_path):
    picture = next((scenes / "val").glob("*.png"))
    options = ("--config-file", run / "config.yaml", "--output", tmp_path / "out")
    predict(*options, picture, "MODEL.WEIGHTS", run / "model_final.pth")
    assert (tmp_path / "out" / "detections.json").exists()


def test_ids_of_an_annotation_file_are_written(run, scenes, tmp_path):
    annotations = scenes / "annotations" / "instances_val.json"
    files = ("--annotations", annotations, "--output", tmp_path / "out")
    predict("--run", run, scenes / "val", *files, *"--threshold 0 --no-pictures".split())
    ids = {image["id"] for image in json.loads(annotations.read_text())["images"]}
    assert {
        entry["image_id"]
        for entry in json.loads((tmp_path / "out" / "detections.json").read_text())
    } <= ids


def test_zoo_weights_without_a_detector_are_refused_with_what_makes_one(scenes, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["virtex-det predict"])
    with pytest.raises(
        UserError, match=r"needs a detector(?s:.*)virtex-det train with MODEL.WEIGHTS virtex://"
    ):
        predict("--run", "virtex://bicaptioning_R_50_L1_H2048", scenes / "val")


def test_heads_left_at_random_are_refused(run, scenes, tmp_path):
    weights = torch.load(run / "model_final.pth", weights_only=True)["model"]
    backbone = {name: tensor for name, tensor in weights.items() if name.startswith("backbone.")}
    torch.save({"model": backbone}, run / "model_final.pth")
    with pytest.raises(UserError, match="does not fill the whole model"):
        predict("--run", run, scenes / "val", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("score", ["2", "-0.1", "x", "nan"])
def test_an_invalid_score_is_refused(score, capsys):
    with pytest.raises(SystemExit):
        predict("--run", "output", "photo.jpg", f"--threshold={score}")
    assert f"'{score}' is not a number from 0 to 1" in capsys.readouterr().err
