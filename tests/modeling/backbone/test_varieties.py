"""CLIP's ResNets equal open_clip's, and ResNet-C, D and S equal timm's, from the image to every
stage.
"""

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_backbone
from torch import Tensor, nn

import virtex_det.modeling  # noqa: F401  (registers the builders)
from tests.modeling.backbone.references import (
    REFERENCES,
    STAGES,
    WIDTH,
    C,
    D,
    build_reference,
    canonical,
    config,
    features,
    load,
)
from virtex_det.errors import UserError

CLIP = REFERENCES["CLIP RN50"]


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Equal to 1e-4 of each tensor's largest value."""
    assert list(ours) == list(theirs)
    for name in ours:
        scale = float(theirs[name].abs().max())
        assert scale > 0 and ours[name].shape == theirs[name].shape
        assert float((ours[name] - theirs[name]).abs().max()) < 1e-4 * scale, name


def assert_parity(name: str, norm: str, size: tuple[int, int]) -> None:
    reference = build_reference(REFERENCES[name])
    backbone = build_backbone(config(REFERENCES[name], norm)).eval()
    load(backbone, canonical(reference))
    images = torch.randn(2, 3, *size) * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)
    with torch.no_grad():
        theirs = features(reference, images)
        assert_equal(backbone(images), theirs)
    one, other = theirs["res5"]
    assert float((one - other).abs().max()) > 0.01 * float(one.abs().max()), (
        "res5 hardly depends on the image"
    )


@pytest.mark.parametrize("name", REFERENCES)
def test_every_stage_equals_the_published_network(name: str) -> None:
    assert_parity(name, "BN", (64, 96))


@pytest.mark.parametrize("norm", ["FrozenBN", "SyncBN"])
@pytest.mark.parametrize("name", ["CLIP RN50x4", "ResNet-50-D"])
def test_every_stage_equals_the_published_network_with_another_norm(name: str, norm: str) -> None:
    assert_parity(name, norm, (64, 64))


@pytest.mark.parametrize("name", ["CLIP RN50", "ResNet-50-C", "ResNet-50-D", "ResNet-18-D"])
def test_every_stage_equals_the_published_network_on_odd_sizes(name: str) -> None:
    assert_parity(name, "BN", (75, 107))


@pytest.mark.parametrize("name", ["CLIP RN50", "ResNet-50-D"])
def test_gradients_equal_those_of_the_published_network(name: str) -> None:
    reference = build_reference(REFERENCES[name])
    backbone = build_backbone(config(REFERENCES[name])).eval()
    load(backbone, canonical(reference))
    images = torch.randn(1, 3, 64, 64)
    backbone(images)["res5"].square().sum().backward()
    features(reference, images)["res5"].square().sum().backward()
    theirs = reference.conv1.weight if name == "CLIP RN50" else reference.conv1[0].weight
    assert_equal({"stem": backbone.stem.conv1.weight.grad}, {"stem": theirs.grad})


@pytest.mark.parametrize("name", REFERENCES)
def test_strides_and_channels_are_those_of_a_resnet(name: str) -> None:
    shapes = build_backbone(config(REFERENCES[name])).output_shape()
    res2 = REFERENCES[name].keys.get("RESNETS.RES2_OUT_CHANNELS", 4 * WIDTH)
    assert {stage: (shape.stride, shape.channels) for stage, shape in shapes.items()} == {
        stage: (4 * 2**index, res2 * 2**index) for index, stage in enumerate(STAGES)
    }


@pytest.mark.parametrize("name", ["CLIP RN50", "ResNet-50-D"])
def test_freezing_two_stages_freezes_all_of_the_stem_and_of_res2(name: str) -> None:
    cfg = config(REFERENCES[name], "SyncBN")
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    backbone = build_backbone(cfg)
    frozen = {parameter for parameter, p in backbone.named_parameters() if not p.requires_grad}
    norms = {
        norm for norm, module in backbone.named_modules() if isinstance(module, FrozenBatchNorm2d)
    }
    prefixes = ("stem.", "res2.")
    assert frozen == {
        parameter for parameter, _ in backbone.named_parameters() if parameter.startswith(prefixes)
    }
    assert norms >= {f"stem.conv{n}.norm" for n in (1, 2, 3)} | {
        "res2.0.shortcut.norm",
        "res2.0.conv3.norm",
    }
    live = {
        norm for norm, module in backbone.named_modules() if isinstance(module, nn.SyncBatchNorm)
    }
    assert live and not any(norm.startswith(prefixes) for norm in live)
    assert "res3.0.shortcut.norm" in live


@pytest.mark.parametrize("name", ["CLIP RN50", "ResNet-50-D"])
def test_group_norm_and_no_norm(name: str) -> None:
    cfg = config(REFERENCES[name], "GN")
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64, 32
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 32
    backbone = build_backbone(cfg)
    assert isinstance(backbone.stem.conv3.norm, nn.GroupNorm)
    assert isinstance(backbone.res3[0].shortcut.norm, nn.GroupNorm)
    assert backbone(torch.randn(1, 3, 64, 64))["res5"].shape == (1, 256, 2, 2)
    assert not any(
        "norm" in tensor for tensor in build_backbone(config(REFERENCES[name], "")).state_dict()
    )


@pytest.mark.parametrize("name", ["CLIP RN50", "ResNet-50-D"])
def test_a_feature_pyramid_on_it(name: str) -> None:
    cfg = config(REFERENCES[name])
    cfg.MODEL.BACKBONE.NAME = "build_caption_resnet_fpn_backbone"
    cfg.MODEL.FPN.IN_FEATURES, cfg.MODEL.FPN.OUT_CHANNELS = STAGES, 8
    pyramid = build_backbone(cfg).eval()
    reference = build_reference(REFERENCES[name])
    load(pyramid.bottom_up, canonical(reference))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert_equal(pyramid.bottom_up(images), features(reference, images))
        levels = pyramid(images)
    assert {level: map.shape[-1] for level, map in levels.items()} == {
        "p2": 16,
        "p3": 8,
        "p4": 4,
        "p5": 2,
        "p6": 1,
    }


def test_residual_branches_of_clip_start_at_zero() -> None:
    cfg = config(CLIP)
    cfg.MODEL.CAPTION_RESNET.ZERO_INIT_RESIDUAL = True
    backbone = build_backbone(cfg)
    assert not any(block.conv3.norm.weight.any() for stage in backbone.stages for block in stage)


def test_blocks_overrule_the_depth() -> None:
    cfg = config(CLIP)
    cfg.MODEL.CAPTION_RESNET.BLOCKS = (1, 2, 3, 4)
    backbone = build_backbone(cfg)
    assert [len(stage) for stage in backbone.stages] == [1, 2, 3, 4]


def test_a_plain_resnet_200() -> None:
    cfg = config(CLIP)
    cfg.merge_from_list(
        (
            "MODEL.RESNETS.DEPTH 200 MODEL.CAPTION_RESNET.STEM basic "
            "MODEL.CAPTION_RESNET.DOWNSAMPLE conv"
        ).split()
    )
    assert [len(stage) for stage in build_backbone(cfg).stages] == [3, 24, 36, 3]


def test_a_deep_stem_with_a_dilated_res5() -> None:
    cfg = config(REFERENCES["ResNet-50-C"])
    cfg.MODEL.RESNETS.RES5_DILATION = 2
    backbone = build_backbone(cfg)
    assert backbone.output_shape()["res5"].stride == 16
    assert backbone(torch.randn(1, 3, 64, 64))["res5"].shape[-1] == 4


def changed(base: dict[str, Any], **keys: Any) -> CfgNode:
    cfg = config(CLIP._replace(keys=base))
    cfg.merge_from_list(
        [part for key, value in keys.items() for part in (f"MODEL.{key.replace('__', '.')}", value)]
    )
    return cfg


@pytest.mark.parametrize(
    ("key", "base", "keys"),
    [
        ("CAPTION_RESNET.STEM", {}, {"CAPTION_RESNET__STEM": "wide"}),
        ("CAPTION_RESNET.DOWNSAMPLE", {}, {"CAPTION_RESNET__DOWNSAMPLE": "avg"}),
        ("CAPTION_RESNET.DOWNSAMPLE", CLIP.keys, {"RESNETS__DEPTH": 18}),
        ("CAPTION_RESNET.BLOCKS", CLIP.keys, {"CAPTION_RESNET__BLOCKS": (3, 4, 6)}),
        ("CAPTION_RESNET.BLOCKS", CLIP.keys, {"CAPTION_RESNET__BLOCKS": (3, 4, 0, 3)}),
        ("RESNETS.STEM_OUT_CHANNELS", C, {"RESNETS__STEM_OUT_CHANNELS": 9}),
        ("RESNETS.RES5_DILATION", CLIP.keys, {"RESNETS__RES5_DILATION": 2}),
        ("RESNETS.RES5_DILATION", D, {"RESNETS__RES5_DILATION": 2}),
        ("RESNETS.STRIDE_IN_1X1", D, {"RESNETS__STRIDE_IN_1X1": True}),
        ("ROI_HEADS.NAME", CLIP.keys, {"RESNETS__OUT_FEATURES": ["res4"]}),
        (
            "ROI_HEADS.NAME",
            {"CAPTION_RESNET.BLOCKS": (4, 6, 10, 6)},
            {"RESNETS__OUT_FEATURES": ["res4"]},
        ),
    ],
)
def test_a_network_that_does_not_exist_is_an_error_naming_its_key(
    key: str, base: dict[str, Any], keys: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=f"MODEL.{key} is"):
        build_backbone(changed(base, **keys))
