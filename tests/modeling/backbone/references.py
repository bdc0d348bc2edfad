"""The networks of open_clip and timm, narrow and random, and the configs and names with which ours
equal them.
"""

import re
from typing import Any, NamedTuple

import pytest
import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from virtex_det.config import get_cfg

STAGES = ["res2", "res3", "res4", "res5"]
WIDTH = 8  # bottleneck channels in res2; published networks have 64, or 80


class Reference(NamedTuple):
    """A published network, and what to set so that ours is the same."""

    library: str
    layers: tuple[int, ...]
    keys: dict[str, Any]
    arguments: dict[str, Any] = {}


def _clip(*layers: int, **keys: Any) -> Reference:
    return Reference(
        "open_clip",
        layers,
        {"CAPTION_RESNET.STEM": "clip", "CAPTION_RESNET.DOWNSAMPLE": "clip", **keys},
    )


def _timm(*layers: int, keys: dict[str, Any], **arguments: Any) -> Reference:
    return Reference("timm", layers, keys, arguments)


DEEP = {"stem_type": "deep", "stem_width": WIDTH // 2}
C = {"CAPTION_RESNET.STEM": "deep"}
D = {**C, "CAPTION_RESNET.DOWNSAMPLE": "avg_shortcut"}
REFERENCES = {
    "CLIP RN50": _clip(3, 4, 6, 3),
    "CLIP RN101": _clip(3, 4, 23, 3, **{"RESNETS.DEPTH": 101}),
    "CLIP RN50x4": _clip(4, 6, 10, 6, **{"CAPTION_RESNET.BLOCKS": (4, 6, 10, 6)}),
    "ResNet-50-C": _timm(3, 4, 6, 3, keys=C, **DEEP),
    "ResNet-50-D": _timm(3, 4, 6, 3, keys=D, **DEEP, avg_down=True),
    "ResNet-50-S": _timm(
        *(3, 4, 6, 3),
        keys={**C, "RESNETS.STEM_OUT_CHANNELS": 2 * WIDTH},
        stem_type="deep",
        stem_width=WIDTH,
    ),
    "ResNet-50-D w2x": _timm(
        *(3, 4, 6, 3),
        keys={**D, "RESNETS.WIDTH_PER_GROUP": 2 * WIDTH},
        **DEEP,
        avg_down=True,
        base_width=128,
    ),
    "ResNet-18-D": _timm(
        *(2, 2, 2, 2),
        keys={**D, "RESNETS.DEPTH": 18, "RESNETS.RES2_OUT_CHANNELS": WIDTH},
        **DEEP,
        avg_down=True,
    ),
    "ResNet-200-D": _timm(3, 24, 36, 3, keys={**D, "RESNETS.DEPTH": 200}, **DEEP, avg_down=True),
}


def config(reference: Reference, norm: str = "BN") -> CfgNode:
    """Return the config of our network."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = "build_caption_resnet_backbone", 0
    cfg.MODEL.RESNETS.OUT_FEATURES, cfg.MODEL.RESNETS.NORM = STAGES, norm
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.WIDTH_PER_GROUP = WIDTH
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS, cfg.MODEL.RESNETS.STRIDE_IN_1X1 = 4 * WIDTH, False
    cfg.merge_from_list(
        [part for key, value in reference.keys.items() for part in (f"MODEL.{key}", value)]
    )
    return cfg


def build_reference(reference: Reference) -> nn.Module:
    """Build the library's network in evaluation mode with random weights and random running
    statistics.
    """
    torch.manual_seed(0)
    network = (_build_open_clip if reference.library == "open_clip" else _build_timm)(reference)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)  # so that the image still shows in res5
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def features(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return what the four stages of the library's network make of images (N, 3, H, W)."""
    x = network.stem(images) if hasattr(network, "stem") else _timm_stem(network, images)
    outputs = {}
    for index, stage in enumerate(STAGES, start=1):
        x = outputs[stage] = getattr(network, f"layer{index}")(x)
    return outputs


def canonical(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights of the library's network by our names."""
    kept = {
        n: t
        for n, t in network.state_dict().items()
        if not re.match(r"attnpool\.|fc\.|.*num_batches_tracked", n)
    }
    deep = any(name.startswith("conv1.0.") for name in kept)
    return {_canonical_name(name, tensor, deep): tensor for name, tensor in kept.items()}


def load(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load weights, all of them and nothing less."""
    names = {name for name in module.state_dict() if not name.endswith("num_batches_tracked")}
    assert names == set(weights)
    module.load_state_dict(weights, strict=False)


def _canonical_name(name: str, tensor: Tensor, deep: bool) -> str:
    # a sequence of convolution, norm and ReLU, three times
    if deep and name.startswith(("conv1.", "bn1.")):
        place = {
            "conv1.0": "conv1",
            "conv1.1": "conv1.norm",
            "conv1.3": "conv2",
            "conv1.4": "conv2.norm",
        }
        place.update({"conv1.6": "conv3", "bn1": "conv3.norm"})
        module, _, leaf = name.rpartition(".")
        return f"stem.{place[module]}.{leaf}"
    name = re.sub(r"\bbn(\d)", r"conv\1.norm", name)
    name = re.sub(r"downsample\.\d", "shortcut" if tensor.dim() == 4 else "shortcut.norm", name)
    return (
        re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
        if "layer" in name
        else f"stem.{name}"
    )


def _build_open_clip(reference: Reference) -> nn.Module:
    reason = (
        "open_clip, the reference for CLIP's ResNets, is not installed (pip install "
        "open_clip_torch)"
    )
    module = pytest.importorskip("open_clip.modified_resnet", reason=reason)
    return module.ModifiedResNet(
        list(reference.layers), output_dim=8, heads=4, image_size=32, width=WIDTH
    )


def _build_timm(reference: Reference) -> nn.Module:
    reason = "timm, the reference for ResNet-C, D and S, is not installed (pip install timm)"
    module = pytest.importorskip("timm.models.resnet", reason=reason)
    block = module.BasicBlock if reference.keys.get("RESNETS.DEPTH") == 18 else module.Bottleneck
    channels = tuple(WIDTH * 2**index for index in range(4))
    return module.ResNet(
        block, reference.layers, num_classes=1, channels=channels, **reference.arguments
    )


def _timm_stem(network: nn.Module, images: Tensor) -> Tensor:
    return network.maxpool(network.act1(network.bn1(network.conv1(images))))
