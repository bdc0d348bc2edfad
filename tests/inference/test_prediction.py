from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import DefaultPredictor

from virtex_det.config import with_options
from virtex_det.engine import Trainer
from virtex_det.errors import UserError
from virtex_det.inference import Predictor


@pytest.fixture
def whole(detector_cfg, tmp_path):
    """The config of a detector, with a file that fills it."""
    cfg = detector_cfg(
        "MODEL.WEIGHTS", tmp_path / "whole.pth", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0
    )
    torch.save({"model": Trainer.build_model(cfg).state_dict()}, tmp_path / "whole.pth")
    return cfg


def test_a_whole_file_predicts_what_detectron2s_predictor_predicts(whole):
    image = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    ours, theirs = Predictor(whole)(image)["instances"], DefaultPredictor(whole)(image)["instances"]
    assert len(ours) == len(theirs) > 0
    torch.testing.assert_close(ours.scores, theirs.scores)
    torch.testing.assert_close(
        ours.pred_boxes.tensor, theirs.pred_boxes.tensor, rtol=1e-4, atol=1e-3
    )


def test_a_file_without_heads_predicts_nothing(whole):
    content = torch.load(whole.MODEL.WEIGHTS, weights_only=True)["model"]
    backbone = {name: value for name, value in content.items() if name.startswith("backbone.")}
    torch.save({"model": backbone}, whole.MODEL.WEIGHTS)
    # loads what there is, and logs
    DetectionCheckpointer(Trainer.build_model(whole)).load(whole.MODEL.WEIGHTS)
    with pytest.raises(UserError, match="does not fill the whole model"):
        Predictor(whole)


def test_no_weights_is_an_error(detector_cfg):
    with pytest.raises(UserError, match="MODEL.WEIGHTS is empty"):
        Predictor(detector_cfg())


def with_classes(cfg, names):
    content = torch.load(cfg.MODEL.WEIGHTS, weights_only=True)
    torch.save(content | {"classes": names}, cfg.MODEL.WEIGHTS)


@pytest.mark.parametrize("test", ["()", "('not_registered_any_more',)", "('scenes_val',)"])
def test_the_names_of_the_classes_are_those_of_the_run_whatever_is_registered(whole, test):
    names = [f"class {number}" for number in range(whole.MODEL.ROI_HEADS.NUM_CLASSES)]
    with_classes(whole, names)
    predictor = Predictor(with_options(whole, ["DATASETS.TEST", test]))
    assert predictor.classes == tuple(names) and predictor.metadata.thing_classes == names


def test_a_file_without_names_has_those_of_the_data_set(whole):
    assert Predictor(whole).classes == tuple(Predictor(whole).metadata.thing_classes) != ()


@pytest.mark.parametrize("content", ['["nut", "bolt"]', "[", "3"])
def test_a_classes_file_that_is_not_the_checkpoints_is_noticed(whole, content, caplog):
    names = [f"class {number}" for number in range(whole.MODEL.ROI_HEADS.NUM_CLASSES)]
    with_classes(whole, names)
    (Path(whole.MODEL.WEIGHTS).parent / "classes.json").write_text(content)
    assert Predictor(whole).classes == tuple(names)
    assert "classes.json is damaged or has other classes than" in caplog.text


def test_another_number_of_names_than_the_model_has_classes_is_an_error(whole):
    with_classes(whole, ["bolt", "nut"])
    with pytest.raises(
        UserError, match="2 classes .bolt, nut., but MODEL.ROI_HEADS.NUM_CLASSES is"
    ):
        Predictor(whole)
