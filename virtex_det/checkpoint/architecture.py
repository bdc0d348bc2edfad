"""The architecture of a ResNet, read from the shapes of its tensors."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from virtex_det.modeling.backbone.caption_resnet import BLOCKS_PER_STAGE

# (has bottlenecks, blocks per stage): depth
_DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (depth >= 50, blocks): depth for depth, blocks in BLOCKS_PER_STAGE.items()
}
_IN_RESNETS = ("depth", "num_groups", "width_per_group", "res2_out_channels", "stem_out_channels")
_IN_CAPTION_RESNET = ("stem", "downsample")


class Architecture(NamedTuple):
    """A ResNet described by MODEL.RESNETS and MODEL.CAPTION_RESNET; None for unknown values."""

    blocks: tuple[int, ...]
    has_bottlenecks: bool
    depth: int | None
    num_groups: int | None
    width_per_group: int | None
    res2_out_channels: int | None
    stem_out_channels: int | None
    stem: str | None
    downsample: str | None

    def config(self) -> dict[str, Any]:
        """Return the config keys that build this network."""
        facts = self._asdict()
        keys = {f"MODEL.RESNETS.{name.upper()}": facts[name] for name in _IN_RESNETS}
        keys |= {f"MODEL.CAPTION_RESNET.{name.upper()}": facts[name] for name in _IN_CAPTION_RESNET}
        if self.depth is None and all(self.blocks):
            keys["MODEL.RESNETS.DEPTH"] = 50 if self.has_bottlenecks else 34
            keys["MODEL.CAPTION_RESNET.BLOCKS"] = self.blocks
        else:
            keys["MODEL.CAPTION_RESNET.BLOCKS"] = ()
        if not self.has_bottlenecks:  # basic blocks do not read it; RES2_OUT_CHANNELS says it all
            del keys["MODEL.RESNETS.WIDTH_PER_GROUP"]
        return {key: value for key, value in keys.items() if value is not None}

    @property
    def name(self) -> str:
        """A short name, such as ResNet-50."""
        return (
            f"ResNet-{self.depth}"
            if self.depth
            else f"ResNet of {'-'.join(map(str, self.blocks))} blocks"
        )

    def __str__(self) -> str:
        depth = self.name if self.depth else f"a {self.name}"
        widths = f"NUM_GROUPS {self.num_groups}, WIDTH_PER_GROUP {self.width_per_group}"
        return (
            f"{depth}, {widths}, RES2_OUT_CHANNELS {self.res2_out_channels}, "
            f"STEM_OUT_CHANNELS {self.stem_out_channels}, STEM {self.stem}"
        )


def describe(
    backbone: Mapping[str, torch.Tensor], stem: str | None = None, downsample: str | None = None
) -> Architecture:
    """Read depth and widths from the tensors of a whole or incomplete network.

    Args:
        backbone: tensors by canonical name.
        stem: the family's stem; "deep" and "clip" have the same tensors.
        downsample: the family's downsampling; pools have no tensors.
    """
    has_bottlenecks = "res2.0.conv3.weight" in backbone
    blocks = tuple(_count_blocks(backbone, stage) for stage in ("res2", "res3", "res4", "res5"))
    convolutions = {
        name: tensor for name, tensor in backbone.items() if tensor.dim() == 4 and tensor.numel()
    }
    middle = convolutions.get("res2.0.conv2.weight")
    last = convolutions.get("res2.0.conv3.weight", middle)
    stem_end = convolutions.get("stem.conv3.weight", convolutions.get("stem.conv1.weight"))
    groups = None
    if middle is not None:
        groups = middle.shape[0] // middle.shape[1] if has_bottlenecks else 1
    return Architecture(
        blocks=blocks,
        has_bottlenecks=has_bottlenecks,
        depth=_DEPTHS.get((has_bottlenecks, blocks)),
        num_groups=groups,
        width_per_group=None if middle is None or not groups else middle.shape[0] // groups,
        res2_out_channels=None if last is None else last.shape[0],
        stem_out_channels=None if stem_end is None else stem_end.shape[0],
        stem="basic" if "stem.conv2.weight" not in backbone else stem if stem != "basic" else None,
        downsample=downsample,
    )


def _count_blocks(names: Mapping[str, torch.Tensor], stage: str) -> int:
    return len({match[1] for name in names if (match := re.match(rf"{stage}\.(\d+)\.", name))})
