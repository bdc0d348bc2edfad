"""A network found in a weights file: the value that passes from reading to loading."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch

from virtex_det.checkpoint.architecture import Architecture, describe
from virtex_det.checkpoint.backbones import backbone_names
from virtex_det.checkpoint.formats import OWN_CHECKPOINT, Format
from virtex_det.checkpoint.names import COUNTER
from virtex_det.checkpoint.networks import TOP_LEVEL

Required = Literal["backbone", "model"]  # the part of a model that must be filled
_STAGES = ("res2", "res3", "res4", "res5")


class Weights(NamedTuple):
    """The tensors of a file, and the names under which a model has them."""

    format: Format
    tensors: dict[str, torch.Tensor]  # by their names in the file
    backbone: dict[str, str]  # canonical name -> name in the file
    rest: dict[str, str]  # name in a Detectron2 model -> name in the file
    repeated: dict[str, tuple[str, ...]] = {}  # canonical name -> several names in the file
    unreadable: dict[str, str] = {}  # canonical name -> name of a value that is not a plain tensor
    location: str = TOP_LEVEL  # keys and prefix in the file
    choice: str = ""  # the file's other networks, and why this one was chosen
    assumed: str = ""  # facts of the network that nothing shows
    is_resnet: bool = True

    def sources(self, names: Iterable[str]) -> dict[str, str]:
        """Return {name in the model: name in the file} for the model's tensors in the file.

        A file with all of the model's own names is matched by them. Otherwise the backbone is
        matched by its canonical names.
        """
        names = list(names)
        layers = backbone_names(names)
        if all(name in self.rest for name in layers if not name.endswith(COUNTER)):
            return {name: self.rest[name] for name in names if name in self.rest}
        found = {}
        for name in names:
            source = self.backbone.get(layers[name]) if name in layers else self.rest.get(name)
            if source is not None:
                found[name] = source
        return found

    @property
    def architecture(self) -> Architecture:
        """The architecture that the tensors show."""
        backbone = {canonical: self.tensors[name] for canonical, name in self.backbone.items()}
        return describe(backbone, self.format.stem, self.format.downsample)

    def network_keys(self) -> dict[str, Any]:
        """Return the config keys that build this network, as far as file and family show them."""
        stride = self.format.stride_in_1x1
        strides = {} if stride is None else {"MODEL.RESNETS.STRIDE_IN_1X1": stride}
        return self.architecture.config() | strides

    @property
    def is_whole(self) -> bool:
        """Whether a ResNet has its stem, and in every stage all blocks from 0 to the last."""
        blocks: dict[str, set[int]] = {stage: set() for stage in _STAGES}
        for canonical in self.backbone:
            if match := re.match(r"(res\d)\.(\d+)\.", canonical):
                blocks[match[1]].add(int(match[2]))
        return "stem.conv1.weight" in self.backbone and all(
            found and found == set(range(len(found))) for found in blocks.values()
        )


def own_weights(content: Any) -> Weights:
    """Return the model in a run's checkpoint; its tensors have the model's own names."""
    model = content.get("model") if isinstance(content, Mapping) else None
    named = model.items() if isinstance(model, Mapping) else ()
    tensors = {str(name): value for name, value in named if isinstance(value, torch.Tensor)}
    backbone = {canonical: name for name, canonical in backbone_names(tensors).items()}
    return Weights(
        OWN_CHECKPOINT, tensors, backbone, {name: name for name in tensors}, location="model."
    )
