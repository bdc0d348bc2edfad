"""Tiny networks, and a ResNet-50's tensors in the layout of several families of weights files."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone, build_model
from torch import nn

from virtex_det import get_cfg

Tensors = dict[str, torch.Tensor]

WEIGHTS_WITH_STATISTICS = 318  # of ResNet-50 without classifier, batch counters included
FROZEN_TENSORS = 265  # the same without batch counters


@pytest.fixture(scope="session")
def cfg() -> CfgNode:
    """The config of a narrow Mask R-CNN R50-FPN for ImageNet's pixels, with batch norm."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.RESNETS.DEPTH = 50
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 4
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 8
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 8
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.PIXEL_MEAN = [123.675, 116.28, 103.53]
    cfg.MODEL.PIXEL_STD = [58.395, 57.12, 57.375]
    return cfg


@pytest.fixture
def fpn(cfg: CfgNode) -> Callable[..., nn.Module]:
    """Builds the Mask R-CNN R50-FPN, with settings as ``fpn(DEPTH=101)`` under MODEL.RESNETS."""

    def build(**resnets: Any) -> nn.Module:
        changed = cfg.clone()
        changed.MODEL.RESNETS.merge_from_other_cfg(CfgNode(resnets))
        return build_model(changed)

    return build


@pytest.fixture
def c4(cfg: CfgNode) -> Callable[..., nn.Module]:
    """Builds a Faster R-CNN R50-C4; ``extra_norm`` adds the protocol's norm after res5."""

    def build(extra_norm: bool = False, **resnets: Any) -> nn.Module:
        changed = cfg.clone()
        changed.MODEL.MASK_ON = False
        changed.MODEL.BACKBONE.NAME = "build_resnet_backbone"
        changed.MODEL.RESNETS.OUT_FEATURES = ["res4"]
        changed.MODEL.RPN.IN_FEATURES = ["res4"]
        changed.MODEL.ANCHOR_GENERATOR.SIZES = [[32, 64, 128]]
        changed.MODEL.ROI_HEADS.NAME = "Res5ROIHeads"
        changed.MODEL.ROI_HEADS.IN_FEATURES = ["res4"]
        changed.MODEL.RESNETS.merge_from_other_cfg(CfgNode(resnets))
        model = build_model(changed)
        if extra_norm:
            model.roi_heads.res5.add_module("norm", nn.BatchNorm2d(128))
        return model

    return build


class Pretraining(nn.Module):
    """The names of a pretraining model: a backbone and a text head."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.textual = nn.Linear(3, 3)


@pytest.fixture
def pretraining(cfg: CfgNode) -> Callable[..., nn.Module]:
    """Builds a stand-in for a captioning model."""

    def build(**resnets: Any) -> nn.Module:
        changed = cfg.clone()
        changed.MODEL.BACKBONE.NAME = "build_resnet_backbone"
        changed.MODEL.RESNETS.merge_from_other_cfg(CfgNode(resnets))
        return Pretraining(build_backbone(changed))

    return build


@pytest.fixture(scope="session")
def backbone_tensors(cfg: CfgNode) -> Tensors:
    """A narrow ResNet-50 with batch norm by Detectron2's names; no tensor has initial values."""
    changed = cfg.clone()
    changed.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    return random_tensors(build_backbone(changed).state_dict())


def random_tensors(like: Tensors) -> Tensors:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(value.shape, generator=generator) + 2
        if value.is_floating_point()
        else torch.tensor(7)
        for name, value in like.items()
    }


def torchvision_name(name: str) -> str:
    """Torchvision's name for a backbone tensor by Detectron2's name."""
    name = name.replace("stem.conv1.norm", "bn1").replace("stem.conv1", "conv1")
    name = name.replace("shortcut.norm", "downsample.1").replace("shortcut", "downsample.0")
    name = re.sub(r"conv(\d)\.norm", r"bn\1", name)
    return re.sub(r"^res(\d)", lambda match: f"layer{int(match[1]) - 1}", name)


def torchvision_tensors(backbone: Tensors, prefix: str = "") -> Tensors:
    return {prefix + torchvision_name(name): value for name, value in backbone.items()}


def with_classifier(tensors: Tensors, prefix: str = "") -> Tensors:
    return tensors | {f"{prefix}fc.weight": torch.ones(10, 128), f"{prefix}fc.bias": torch.ones(10)}


def virtex_full_model(backbone: Tensors) -> Tensors:
    return torchvision_tensors(backbone, "visual.cnn.") | {
        "textual.visual_projection.weight": torch.ones(2, 2),
        "textual.embedding.words.weight": torch.ones(4, 2),
        "backward_textual.embedding.words.weight": torch.ones(4, 2),
    }


def virtex_training_file(backbone: Tensors) -> dict[str, Any]:
    return {
        "model": virtex_full_model(backbone),
        "optimizer": {
            "state": {0: {"momentum_buffer": torch.ones(2)}},
            "param_groups": [{"lr": 0.1, "params": [0]}],
        },
        "scheduler": {"last_epoch": 3},
        "scaler": {},
        "iteration": 500000,
    }


def fpn_detector(backbone: Tensors) -> dict[str, Any]:
    heads = {
        "backbone.fpn_lateral2.weight": torch.ones(8, 16, 1, 1),
        "proposal_generator.rpn_head.conv.weight": torch.ones(8, 8, 3, 3),
        "roi_heads.box_predictor.cls_score.weight": torch.ones(81, 8),
    }
    return {
        "model": {f"backbone.bottom_up.{name}": value for name, value in backbone.items()} | heads,
        "iteration": 9,
    }


def c4_detector(backbone: Tensors) -> dict[str, Any]:
    model = {
        ("roi_heads." if name.startswith("res5") else "backbone.") + name: value
        for name, value in backbone.items()
    }
    return {
        "model": model | {"roi_heads.res5.norm.weight": torch.ones(128)},
        "trainer": {"iteration": 9},
    }


def own_pretraining(backbone: Tensors) -> dict[str, Any]:
    model = {f"backbone.{name}": value for name, value in backbone.items()}
    return {
        "model": model | {"textual.weight": torch.ones(3, 3), "textual.bias": torch.ones(3)},
        "iteration": 9,
    }


# Layouts to load into every kind of model; layouts.py has all published ones.
LAYOUTS: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "virtex training file": (virtex_training_file, "virtex"),
    "hub backbone": (torchvision_tensors, "resnet_backbone"),
    "own pretraining": (own_pretraining, "virtex_det_pretraining"),
    "FPN detector": (fpn_detector, "detector"),
    "C4 detector": (c4_detector, "detector"),
}


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> tuple[Callable[[Tensors], Any], str]:
    """Each layout in turn: its maker and its family."""
    return LAYOUTS[request.param]


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Saves anything as a file and returns its path."""

    def save_as(content: Any, name: str = "weights.pth", **options: Any) -> str:
        path = tmp_path / name
        torch.save(content, path, **options)
        return str(path)

    return save_as
