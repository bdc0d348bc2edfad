"""Narrow networks of torchvision, timm and open_clip with random values, for published layouts."""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from virtex_det.checkpoint.formats import CLIP_RGB, IMAGENET_RGB, MSRA_BGR, Pixels
from virtex_det.config import get_cfg

STAGES = ("res2", "res3", "res4", "res5")
R50, R101, RN50X4 = (3, 4, 6, 3), (3, 4, 23, 3), (4, 6, 10, 6)
RN50X16, RN50X64 = (6, 8, 18, 8), (3, 15, 36, 10)


class Original(NamedTuple):
    """A published network, its stages, and the config keys that build the same network."""

    build: Callable[[], nn.Module]
    stages: Callable[[nn.Module], list[nn.Module]]  # from image to res2, and on to res5
    keys: dict[str, Any] = {}
    pixels: Pixels = IMAGENET_RGB


def _torchvision_stages(network: nn.Module) -> list[nn.Module]:
    relu = network.act1 if hasattr(network, "act1") else network.relu
    stem = nn.Sequential(network.conv1, network.bn1, relu, network.maxpool)
    return [nn.Sequential(stem, network.layer1), network.layer2, network.layer3, network.layer4]


def _clip_stages(network: nn.Module) -> list[nn.Module]:
    stem = _Function(network.stem)
    return [nn.Sequential(stem, network.layer1), network.layer2, network.layer3, network.layer4]


def _timm_clip_stages(network: nn.Module) -> list[nn.Module]:
    return [nn.Sequential(network.stem, network.stages[0]), *network.stages[1:]]


class _Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _msra() -> nn.Module:
    network = ResNet(Bottleneck, list(R50), width_per_group=4)
    for layer in (network.layer2, network.layer3, network.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    return network


def _clip(layers: tuple[int, ...]) -> nn.Module:
    module = pytest.importorskip("open_clip.modified_resnet", reason="open_clip is not installed")
    return module.ModifiedResNet(list(layers), output_dim=16, heads=4, image_size=64, width=8)


def _timm_clip() -> nn.Module:
    module = pytest.importorskip("timm.models.byobnet", reason="timm is not installed")
    published = module.model_cfgs["resnet50_clip"]
    blocks = tuple(dataclasses.replace(block, c=block.c // 8) for block in published.blocks)
    return module.ByobNet(
        dataclasses.replace(published, stem_chs=(4, 4, 8), blocks=blocks), img_size=64
    )


def _timm(**arguments: Any) -> nn.Module:
    module = pytest.importorskip("timm.models.resnet", reason="timm is not installed")
    return module.ResNet(
        module.Bottleneck, R50, channels=(8, 16, 32, 64), num_classes=10, **arguments
    )


_NARROW = {"RESNETS.WIDTH_PER_GROUP": 4}
_CLIP_KEYS = {
    "CAPTION_RESNET.STEM": "clip",
    "CAPTION_RESNET.DOWNSAMPLE": "clip",
    "RESNETS.STEM_OUT_CHANNELS": 8,
    "RESNETS.RES2_OUT_CHANNELS": 32,
    "RESNETS.WIDTH_PER_GROUP": 8,
}
_DEEP_KEYS = {**_CLIP_KEYS, "CAPTION_RESNET.STEM": "deep", "CAPTION_RESNET.DOWNSAMPLE": "conv"}

ORIGINALS = {
    "ResNet-50": Original(
        lambda: ResNet(Bottleneck, list(R50), width_per_group=4), _torchvision_stages, _NARROW
    ),
    "ResNet-50 of twice the width": Original(
        lambda: ResNet(Bottleneck, list(R50), width_per_group=8),
        _torchvision_stages,
        {"RESNETS.WIDTH_PER_GROUP": 8},
    ),
    "ResNet-101": Original(
        lambda: ResNet(Bottleneck, list(R101), width_per_group=4),
        _torchvision_stages,
        {**_NARROW, "RESNETS.DEPTH": 101},
    ),
    "ResNet-18": Original(
        lambda: ResNet(BasicBlock, [2, 2, 2, 2]),
        _torchvision_stages,
        {"RESNETS.DEPTH": 18, "RESNETS.RES2_OUT_CHANNELS": 64},
    ),
    "MSRA's ResNet-50": Original(
        _msra, _torchvision_stages, {**_NARROW, "RESNETS.STRIDE_IN_1X1": True}, pixels=MSRA_BGR
    ),
    "timm's ResNet-50": Original(
        lambda: _timm(),
        _torchvision_stages,
        {"RESNETS.RES2_OUT_CHANNELS": 32, "RESNETS.WIDTH_PER_GROUP": 8},
    ),
    "ResNet-50-C": Original(
        lambda: _timm(stem_type="deep", stem_width=4), _torchvision_stages, _DEEP_KEYS
    ),
    "ResNet-50-D": Original(
        lambda: _timm(stem_type="deep", stem_width=4, avg_down=True),
        _torchvision_stages,
        {**_DEEP_KEYS, "CAPTION_RESNET.DOWNSAMPLE": "avg_shortcut"},
    ),
    "ResNet-50-S": Original(
        lambda: _timm(stem_type="deep", stem_width=8),
        _torchvision_stages,
        {**_DEEP_KEYS, "RESNETS.STEM_OUT_CHANNELS": 16},
    ),
    "CLIP RN50": Original(lambda: _clip(R50), _clip_stages, _CLIP_KEYS, CLIP_RGB),
    "CLIP RN101": Original(
        lambda: _clip(R101), _clip_stages, {**_CLIP_KEYS, "RESNETS.DEPTH": 101}, CLIP_RGB
    ),
    **{
        f"CLIP {name}": Original(
            lambda blocks=blocks: _clip(blocks),
            _clip_stages,
            {**_CLIP_KEYS, "CAPTION_RESNET.BLOCKS": blocks},
            CLIP_RGB,
        )
        for name, blocks in [("RN50x4", RN50X4), ("RN50x16", RN50X16), ("RN50x64", RN50X64)]
    },
    "timm's CLIP RN50": Original(_timm_clip, _timm_clip_stages, _CLIP_KEYS, CLIP_RGB),
}


@cache
def network(name: str) -> nn.Module:
    """Build an original in evaluation mode, with values that differ from the initial ones.

    All values fit into half precision.
    """
    torch.manual_seed(0)
    built = ORIGINALS[name].build().eval()
    for module in built.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)  # so that the image still shows in res5
    for tensor_name, value in built.state_dict().items():
        if tensor_name.endswith(("running_mean", "bias")):
            value.uniform_(-0.2, 0.2)
        elif value.dim() == 1:
            value.uniform_(0.5, 1.5)
        if value.is_floating_point():
            value.copy_(value.half())
    return built


@cache
def features(name: str) -> dict[str, Tensor]:
    """Compute the feature maps of an original for `image`."""
    outputs, x = {}, image()
    with torch.no_grad():
        for stage, module in zip(STAGES, ORIGINALS[name].stages(network(name)), strict=True):
            x = outputs[stage] = module(x)
    return outputs


def image() -> Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def config(name: str, kind: str = "FPN", norm: str = "BN") -> CfgNode:
    """Return the config of a detector with virtex_det's version of an original."""
    original, cfg = ORIGINALS[name], get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.FREEZE_AT = "GeneralizedRCNN", 0
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.RESNETS.STRIDE_IN_1X1 = norm, False
    cfg.MODEL.MASK_ON, cfg.MODEL.ROI_HEADS.NUM_CLASSES = False, 3
    keys = {f"MODEL.{key}": value for key, value in original.keys.items()} | _DETECTORS[kind]
    cfg.merge_from_list([part for pair in keys.items() for part in pair])
    cfg.INPUT.FORMAT = original.pixels.format
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = (
        list(original.pixels.mean),
        list(original.pixels.std),
    )
    return cfg


_DETECTORS: dict[str, dict[str, Any]] = {
    "FPN": {
        "MODEL.BACKBONE.NAME": "build_caption_resnet_fpn_backbone",
        "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.FPN.OUT_CHANNELS": 8,
        "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
        "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
        "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
        "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
        "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
        "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
        "MODEL.ROI_BOX_HEAD.FC_DIM": 8,
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    },
    "C4": {
        "MODEL.BACKBONE.NAME": "build_caption_resnet_backbone",
        "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4"],
        "MODEL.RPN.IN_FEATURES": ["res4"],
        "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128]],
        "MODEL.ROI_HEADS.NAME": "CaptionRes5ROIHeads",
        "MODEL.ROI_HEADS.IN_FEATURES": ["res4"],
    },
}


@cache
def _fresh(name: str, kind: str, norm: str) -> tuple[nn.Module, dict[str, Tensor]]:
    model = build_model(config(name, kind, norm)).eval()
    return model, {key: torch.full_like(value, 3) for key, value in model.state_dict().items()}


def detector(name: str, kind: str, norm: str = "BN") -> nn.Module:
    """Return a detector on our version of an original, with nothing loaded into it."""
    model, initial = _fresh(name, kind, norm)
    model.load_state_dict(initial)
    return model


def detector_features(model: nn.Module) -> dict[str, Tensor]:
    """Compute what res2 to res5 of a detector, res5 wherever it lies, make of `image`."""
    with torch.no_grad():
        if hasattr(model.backbone, "bottom_up"):
            return model.backbone.bottom_up(image())
        outputs = model.backbone(image())
        return outputs | {"res5": model.roi_heads.res5(outputs["res4"])}
