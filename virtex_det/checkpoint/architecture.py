"""Which ResNet a set of tensors belongs to, read from their shapes."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch

# (has bottlenecks, blocks per stage): depth
_DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}


class Architecture(NamedTuple):
    """A ResNet in the terms of MODEL.RESNETS; None for what the tensors do not show."""

    blocks: tuple[int, ...]
    depth: int | None
    num_groups: int | None
    width_per_group: int | None
    res2_out_channels: int | None
    stem_out_channels: int | None

    def config(self) -> dict[str, int]:
        """Return the config keys that build this network."""
        facts = self._asdict()
        del facts["blocks"]
        return {f"MODEL.RESNETS.{name.upper()}": value for name, value in facts.items() if value is not None}

    def __str__(self) -> str:
        depth = f"ResNet-{self.depth}" if self.depth else f"a ResNet of {'-'.join(map(str, self.blocks))} blocks"
        widths = f"NUM_GROUPS {self.num_groups}, WIDTH_PER_GROUP {self.width_per_group}"
        return (
            f"{depth}, {widths}, RES2_OUT_CHANNELS {self.res2_out_channels}, STEM_OUT_CHANNELS {self.stem_out_channels}"
        )


def describe(backbone: Mapping[str, torch.Tensor]) -> Architecture:
    """Read depth and widths from tensors by canonical name, all or some of them there."""
    has_bottlenecks = "res2.0.conv3.weight" in backbone
    blocks = tuple(_count_blocks(backbone, stage) for stage in ("res2", "res3", "res4", "res5"))
    middle = backbone.get("res2.0.conv2.weight")
    last = backbone.get("res2.0.conv3.weight", middle)
    stem = backbone.get("stem.conv1.weight")
    groups = None
    if middle is not None:
        groups = middle.shape[0] // middle.shape[1] if has_bottlenecks else 1
    return Architecture(
        blocks=blocks,
        depth=_DEPTHS.get((has_bottlenecks, blocks)),
        num_groups=groups,
        width_per_group=None if middle is None or not groups else middle.shape[0] // groups,
        res2_out_channels=None if last is None else last.shape[0],
        stem_out_channels=None if stem is None else stem.shape[0],
    )


def _count_blocks(names: Mapping[str, torch.Tensor], stage: str) -> int:
    return len({match[1] for name in names if (match := re.match(rf"{stage}\.(\d+)\.", name))})
