import pytest
import torch

from tests.checkpoint.conftest import LAYOUTS, torchvision_tensors
from virtex_det.checkpoint.formats import (
    FORMATS,
    OWN_CHECKPOINT,
    check_config,
    contradictions,
    from_detectron2,
    from_torchvision,
    recognise,
)
from virtex_det.errors import UserError

BY_NAME = {entry.name: entry for entry in FORMATS}


def test_every_layout_is_recognised_and_gives_the_same_backbone(layout, backbone_tensors):
    make, family = layout
    weights = recognise(make(backbone_tensors), "weights.pth")
    assert weights.format.name == family
    assert set(weights.backbone) == set(backbone_tensors)
    for canonical, name in weights.backbone.items():
        assert weights.tensors[name] is backbone_tensors[canonical]


def test_every_family_has_a_layout_here():
    assert {family for _, family in LAYOUTS.values()} == set(BY_NAME)
    assert len(BY_NAME) == len(FORMATS)


def test_a_layout_fits_one_family_only(layout, backbone_tensors, monkeypatch):
    make, family = layout
    others = tuple(entry for entry in FORMATS if entry.name != family)
    monkeypatch.setattr("virtex_det.checkpoint.formats.FORMATS", others)
    with pytest.raises(UserError):
        recognise(make(backbone_tensors), "weights.pth")


def test_the_norm_after_res5_is_no_part_of_the_backbone():
    assert from_detectron2("roi_heads.res5.norm.weight") is None
    assert from_detectron2("roi_heads.res5.0.conv1.norm.weight") == "res5.0.conv1.norm.weight"


def test_heads_and_classifiers_are_no_part_of_the_backbone():
    for name in ("backbone.fpn_lateral2.weight", "roi_heads.box_head.fc1.weight", "textual.weight", "pixel_mean"):
        assert from_detectron2(name) is None
    assert from_torchvision("fc.weight") is None


@pytest.mark.parametrize("prefix", ["encoder_q.", "module.encoder_q.", "_feature_blocks.", "backbone.", "visual."])
def test_a_foreign_prefix_is_an_error_and_not_zero_tensors(backbone_tensors, prefix):
    with pytest.raises(UserError) as caught:
        recognise({"state_dict": torchvision_tensors(backbone_tensors, prefix)}, "moco.pth")
    message = str(caught.value)
    assert "conv1.weight" in message
    assert all(name in message for name in BY_NAME)


def test_clip_blocks_under_torchvision_names_are_not_taken_for_a_torchvision_resnet(backbone_tensors):
    clip = torchvision_tensors(backbone_tensors) | {
        "conv2.weight": torch.ones(4, 4, 3, 3),
        "conv3.weight": torch.ones(4, 4, 3, 3),
        "attnpool.positional_embedding": torch.ones(50, 128),
    }
    with pytest.raises(UserError, match="no weights family"):
        recognise(clip, "clip.pth")


@pytest.mark.parametrize("content", [torch.ones(3), [1, 2], {}, {"model": 3}, {"epoch": 1}, {3: torch.ones(1)}])
def test_content_without_named_tensors_is_an_error(content):
    with pytest.raises(UserError, match="no weights family"):
        recognise(content, "weights.pth")


def test_a_config_that_agrees_has_no_contradiction(cfg):
    for entry in FORMATS:
        assert contradictions(entry, cfg) == {}


def test_a_config_for_bgr_and_caffe_strides_contradicts_virtex(cfg):
    caffe = cfg.clone()
    caffe.INPUT.FORMAT = "BGR"
    caffe.MODEL.PIXEL_MEAN = [103.53, 116.28, 123.675]
    caffe.MODEL.PIXEL_STD = [1.0, 1.0, 1.0]
    caffe.MODEL.RESNETS.STRIDE_IN_1X1 = True
    assert contradictions(BY_NAME["virtex"], caffe) == {
        "INPUT.FORMAT": "RGB",
        "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
        "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
    }
    with pytest.raises(UserError, match="INPUT.FORMAT"):
        check_config(BY_NAME["virtex"], caffe, "weights.pth")
    for entry in (BY_NAME["virtex_det_pretraining"], BY_NAME["detector"], OWN_CHECKPOINT):
        assert contradictions(entry, caffe) == {}


def test_what_a_contradiction_says_to_set_mends_it(cfg):
    wrong = cfg.clone()
    wrong.INPUT.FORMAT, wrong.MODEL.PIXEL_STD = "BGR", [1.0, 1.0, 1.0]
    for key, value in contradictions(BY_NAME["torchvision"], wrong).items():
        wrong.merge_from_list([key, value])
    assert contradictions(BY_NAME["torchvision"], wrong) == {}


def test_the_stride_does_not_matter_where_there_are_no_bottlenecks(cfg):
    shallow = cfg.clone()
    shallow.MODEL.RESNETS.DEPTH = 18
    shallow.MODEL.RESNETS.STRIDE_IN_1X1 = True
    assert contradictions(BY_NAME["torchvision"], shallow) == {}
