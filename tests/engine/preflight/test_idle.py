import logging

import pytest
import torch
from torch import nn

from virtex_det.engine.preflight import check_settings, check_training
from virtex_det.engine.preflight.idle import warn_of_idle_keys
from virtex_det.engine.preflight.model import build_shapes
from virtex_det.errors import UserError

PRETRAINING = {
    "a pattern": (
        ("SOLVER.NO_DECAY", r"textuel\..*bias"),
        r"SOLVER.NO_DECAY 'textuel\\..*bias' matches none of the",
    ),
    "a text encoder": (
        ("MODEL.TEXT_ENCODER.WEIGHTS", "some/bert"),
        "TEXT_ENCODER.WEIGHTS some/bert has no effect: BicaptioningModel has no text encoder",
    ),
    "a concept set": (
        ("INPUT.CAPTION.CONCEPTS", "concepts.json"),
        "CONCEPTS concepts.json has no effect: CaptionMapper, the mapper of BicaptioningModel",
    ),
    "clusters": (
        ("INPUT.CAPTION.CLUSTERS", "clusters.json"),
        "CLUSTERS clusters.json has no effect: CaptionMapper",
    ),
    "a family": (("MODEL.WEIGHTS_FORMAT", "moco"), "WEIGHTS_FORMAT moco has no effect: MODEL.WEIG"),
    "a prefix": (("MODEL.WEIGHTS_PREFIX", "encoder_q."), "WEIGHTS_PREFIX encoder_q. has no effect"),
    "their pixels": (("MODEL.FOLLOW_WEIGHTS", True), "FOLLOW_WEIGHTS True has no effect"),
}
STOCK = ("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", "MODEL.RESNETS.RES2_OUT_CHANNELS", 64)
DETECTION = {
    "a concept set": (("INPUT.CAPTION.CONCEPTS", "c.json"), "effect: DetectionMapper"),
    "a multiplier": (
        ("SOLVER.BACKBONE_MULTIPLIER", 20.0, "MODEL.BACKBONE.FREEZE_AT", 5),
        "BACKBONE_MULTIPLIER 20.0 has no effect: no parameter that is trained is of the backbone",
    ),
    "a stem": (
        ("MODEL.CAPTION_RESNET.STEM", "deep", *STOCK),
        "CAPTION_RESNET.STEM deep has no effect: build_resnet_fpn_backbone is Detectron2's own",
    ),
    "blocks": (
        ("MODEL.CAPTION_RESNET.BLOCKS", (1, 1, 1, 1), *STOCK),
        "CAPTION_RESNET.BLOCKS (1, 1, 1, 1) has no effect",
    ),
}


def said(cfg, caplog):
    warn_of_idle_keys(cfg, build_shapes(cfg))
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("options, message", PRETRAINING.values(), ids=PRETRAINING)
def test_what_matches_nothing_in_a_pretraining_is_said(options, message, pretraining_cfg, caplog):
    [found] = said(pretraining_cfg(*options), caplog)
    assert message in found


@pytest.mark.parametrize("options, message", DETECTION.values(), ids=DETECTION)
def test_what_matches_nothing_in_a_detector_is_said(options, message, detector_cfg, caplog):
    [found] = said(detector_cfg(*options), caplog)
    assert message in found


def test_keys_that_match_are_not_named(detector_cfg, pretraining_cfg, caplog, tmp_path):
    stem = "MODEL.CAPTION_RESNET.STEM deep SOLVER.NO_DECAY bias SOLVER.BACKBONE_MULTIPLIER 20.0"
    weights = ("MODEL.WEIGHTS", tmp_path / "w.pth", "MODEL.WEIGHTS_FORMAT", "moco")
    assert not said(detector_cfg(*stem.split(), *weights), caplog)
    assert not said(pretraining_cfg(), caplog), "VirTex's pattern is of the captioning models"
    tags = "MODEL.META_ARCHITECTURE TokenClassificationModel"
    assert not said(pretraining_cfg(*tags.split()), caplog), "its recipe shares the pattern"


def test_a_training_tells_it_before_its_first_step(pretraining_cfg, caplog):
    check_training(pretraining_cfg("SOLVER.NO_DECAY", "textuel"))
    assert "SOLVER.NO_DECAY 'textuel' matches none" in caplog.text


@pytest.mark.parametrize("trains", [True, False])
def test_a_family_that_does_not_exist_is_refused_without_weights_too(trains, detector_cfg):
    cfg = detector_cfg("MODEL.WEIGHTS_FORMAT", "mocoo")
    with pytest.raises(UserError, match="There is no weights family 'mocoo'.* The nearest: moco"):
        check_settings(cfg, trains=trains)


def test_a_model_of_another_package_may_read_any_file(pretraining_cfg, caplog, monkeypatch):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Linear(1, 1)

    cfg = pretraining_cfg("MODEL.TEXT_ENCODER.WEIGHTS", "some/bert", "SOLVER.NO_DECAY", "bias")
    monkeypatch.setattr(
        "virtex_det.engine.preflight.idle.META_ARCH_REGISTRY", {"BicaptioningModel": Own}
    )
    with torch.device("meta"):
        warn_of_idle_keys(cfg, Own())
    assert not caplog.records
