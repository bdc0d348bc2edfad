"""Our ResNets are Detectron2's, wherever Detectron2 has them."""

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import build_backbone
from detectron2.modeling.backbone import resnet
from detectron2.modeling.backbone.resnet import BasicBlock

import virtex_det.modeling  # noqa: F401  (registers the builders)
from virtex_det.config import get_cfg
from virtex_det.errors import UserError

STAGES = ["res2", "res3", "res4", "res5"]


def config(builder: str, **resnets: Any) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = builder
    cfg.MODEL.BACKBONE.FREEZE_AT = resnets.pop("FREEZE_AT", 0)
    cfg.MODEL.FPN.IN_FEATURES, cfg.MODEL.FPN.OUT_CHANNELS = STAGES, 8
    cfg.MODEL.FPN.NORM = resnets.pop("FPN_NORM", "")
    narrow = {
        "OUT_FEATURES": STAGES,
        "RES2_OUT_CHANNELS": 16,
        "WIDTH_PER_GROUP": 4,
        "STEM_OUT_CHANNELS": 8,
        "NORM": "BN",
    }
    cfg.MODEL.RESNETS.update({**narrow, **resnets})
    return cfg


VARIETIES = {
    "18": {"DEPTH": 18, "RES2_OUT_CHANNELS": 64, "STEM_OUT_CHANNELS": 64},
    "34 with a stem of its own width": {
        "DEPTH": 34,
        "RES2_OUT_CHANNELS": 64,
        "STEM_OUT_CHANNELS": 16,
    },
    "50": {"DEPTH": 50},
    "50 frozen norm, stride in 1x1, two stages frozen": {
        "NORM": "FrozenBN",
        "STRIDE_IN_1X1": True,
        "FREEZE_AT": 2,
    },
    "50 stride in 3x3": {"STRIDE_IN_1X1": False},
    "50 twice as wide": {"WIDTH_PER_GROUP": 8, "STRIDE_IN_1X1": False},
    "50 with groups": {"NUM_GROUPS": 4, "WIDTH_PER_GROUP": 2},
    "50 dilated": {"RES5_DILATION": 2},
    "50 for C4": {"OUT_FEATURES": ["res4"]},
    "50 with group norm": {
        "NORM": "GN",
        "RES2_OUT_CHANNELS": 128,
        "WIDTH_PER_GROUP": 32,
        "STEM_OUT_CHANNELS": 32,
    },
    "101": {"DEPTH": 101},
    "152": {"DEPTH": 152},
}


def assert_same_network(name: str, settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ours = build_backbone(config(f"build_caption_{name}", **settings)).eval()
    torch.manual_seed(0)
    theirs = build_backbone(config(f"build_{name}", **settings)).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, p in ours.named_parameters() if p.requires_grad] == [
        n for n, p in theirs.named_parameters() if p.requires_grad
    ]
    assert ours.output_shape() == theirs.output_shape()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=0, atol=0)


@pytest.mark.parametrize("settings", VARIETIES.values(), ids=VARIETIES)
def test_same_weights_and_features_as_detectron2_from_the_same_seed(
    settings: dict[str, Any],
) -> None:
    assert_same_network("resnet_backbone", settings)


@pytest.mark.parametrize("norm", ["", "BN"])
def test_same_feature_pyramid_as_detectron2(norm: str) -> None:
    assert_same_network("resnet_fpn_backbone", {"FPN_NORM": norm})


class UncompiledDeformConv(Conv2d):
    """Detectron2's deformable convolutions need its compiled part; this has their parameters."""

    def __init__(self, *args: Any, deformable_groups: int, **kwargs: Any):
        super().__init__(*args, **kwargs)


@pytest.mark.parametrize("modulated", [True, False])
def test_same_deformable_layers_as_detectron2(
    modulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DeformConv", "ModulatedDeformConv"):
        monkeypatch.setattr(resnet, name, UncompiledDeformConv)
    settings = {
        "DEFORM_ON_PER_STAGE": [False, True, True, True],
        "DEFORM_MODULATED": modulated,
        "DEFORM_NUM_GROUPS": 2,
    }
    ours = build_backbone(config("build_caption_resnet_backbone", **settings)).state_dict()
    theirs = build_backbone(config("build_resnet_backbone", **settings)).state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        n: t.shape for n, t in theirs.items()
    }
    assert "res3.0.conv2_offset.weight" in ours


@pytest.mark.parametrize("depth", [18, 34])
def test_a_shallow_network_of_any_width(depth: int) -> None:
    backbone = build_backbone(
        config("build_caption_resnet_backbone", DEPTH=depth, RES2_OUT_CHANNELS=8)
    )
    assert backbone.output_shape() == {
        stage: ShapeSpec(channels=8 * 2**index, stride=4 * 2**index)
        for index, stage in enumerate(STAGES)
    }
    assert backbone(torch.randn(1, 3, 64, 64))["res5"].shape == (1, 64, 2, 2)
    assert all(isinstance(block, BasicBlock) for block in backbone.res3)


@pytest.mark.parametrize("depth", [18, 50])
def test_residual_branches_that_start_at_zero(depth: int) -> None:
    cfg = config("build_caption_resnet_backbone", DEPTH=depth)
    cfg.MODEL.CAPTION_RESNET.ZERO_INIT_RESIDUAL = True
    backbone = build_backbone(cfg)
    zeroed = {
        name
        for name, p in backbone.named_parameters()
        if name.endswith("norm.weight") and not p.any()
    }
    last = "conv2" if depth == 18 else "conv3"
    blocks = [
        f"{stage}.{index}" for stage in STAGES for index in range(len(getattr(backbone, stage)))
    ]
    assert zeroed == {f"{block}.{last}.norm.weight" for block in blocks}


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("DEPTH", {"DEPTH": 51}),
        ("RES5_DILATION", {"RES5_DILATION": 3}),
        ("RES5_DILATION", {"DEPTH": 18, "RES5_DILATION": 2}),
        ("NUM_GROUPS", {"DEPTH": 34, "NUM_GROUPS": 2}),
        ("DEFORM_ON_PER_STAGE", {"DEPTH": 18, "DEFORM_ON_PER_STAGE": [False, True, True, True]}),
    ],
)
def test_a_network_that_does_not_exist_is_an_error_naming_its_key(
    key: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=f"MODEL.RESNETS.{key}"):
        build_backbone(config("build_caption_resnet_backbone", **settings))


def test_zero_init_without_norms_is_an_error() -> None:
    cfg = config("build_caption_resnet_backbone", NORM="")
    cfg.MODEL.CAPTION_RESNET.ZERO_INIT_RESIDUAL = True
    with pytest.raises(UserError, match="MODEL.RESNETS.NORM"):
        build_backbone(cfg)
