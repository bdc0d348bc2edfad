"""Finding the backbone of a model, and its other networks, by the names of its tensors."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from virtex_det.checkpoint.names import canonical_only

_CALLED_BACKBONE = re.compile(r"(?P<base>(?:.*?\.)?backbone\.)(?P<inside>(?:bottom_up\.|net\.)?).+")
STEM = "stem.conv1.weight"
_BLOCK = "res2.0.conv1.weight"
_BARE = ("", "bottom_up.")  # prefixes of a ResNet and of an FPN's ResNet outside a model
_HEAD_OF_C4 = "roi_heads."


class Backbone(NamedTuple):
    """The backbone among a model's tensors."""

    layers: dict[str, str]  # name in the model -> name below the prefix
    prefix: str = ""
    # prefixes of networks that could as well be the backbone
    rivals: tuple[str, ...] = ()
    # prefixes of all other networks, including rivals
    others: tuple[str, ...] = ()


def backbone_names(names: Iterable[str]) -> dict[str, str]:
    """Return the names of a model's backbone tensors, each with its name inside the backbone.

    Example:
        >>> backbone_names(["backbone.bottom_up.stages.0.weight", "backbone.fpn_output2.weight"])
        {'backbone.bottom_up.stages.0.weight': 'stages.0.weight'}
    """
    return find_backbone(names).layers


def find_backbone(names: Iterable[str]) -> Backbone:
    """Find MODEL.BACKBONE in a model.

    It is the part named ``backbone``, or within it FPN's ``bottom_up`` or ViTDet's ``net``. A model
    without a part of that name is a ResNet, contains one, or is a backbone as a whole. A ResNet's
    backbone is its layers only; in a C4 detector the last of them are in the ROI heads.

    Example:
        >>> blocks = ("stem.conv1.weight", "res2.0.conv1.weight")
        >>> places = ("student.backbone", "teacher.backbone")
        >>> found = find_backbone(f"{place}.{name}" for place in places for name in blocks)
        >>> found.prefix, found.rivals
        ('student.backbone.', ('teacher.backbone.',))
    """
    names = list(dict.fromkeys(names))
    called, resnets = _called_backbone(names), _resnets(names)
    beside = [prefix for prefix in resnets if not any(prefix.startswith(base) for base in called)]
    candidates = [*called.values()] or beside
    clear = (
        [called["backbone."]]
        if "backbone." in called
        else [prefix for prefix in _BARE if prefix in beside]
    )
    prefix = [*clear, *candidates, ""][0]
    layers = _layers(names, prefix, prefix in resnets)
    rivals = [] if clear else [other for other in candidates if other != prefix]
    nested = [root for base, root in called.items() if root != base]
    others = [
        other for other in [*resnets, *nested] if other != prefix and other + STEM not in layers
    ]
    return Backbone(layers, prefix, tuple(rivals), tuple(dict.fromkeys([*rivals, *others])))


def _called_backbone(names: Iterable[str]) -> dict[str, str]:
    """Return each prefix that ends with ``backbone.``, with the prefix of the network below it."""
    found: dict[str, str] = {}
    for name in names:
        if match := _CALLED_BACKBONE.fullmatch(name):
            base, inside = match["base"], match["inside"]
            if inside or base not in found:
                found[base] = base + inside
    return found


def _resnets(names: Iterable[str]) -> list[str]:
    """Return the prefixes of ResNets: those of a first convolution and a first block."""
    known = set(names)
    stems = [name.removesuffix(STEM) for name in names if name == STEM or name.endswith(f".{STEM}")]
    return [prefix for prefix in stems if prefix + _BLOCK in known]


def _layers(names: Sequence[str], prefix: str, is_resnet: bool) -> dict[str, str]:
    if not is_resnet:
        return {name: name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    model = re.sub(r"(?:backbone\.)?(?:bottom_up\.)?$", "", prefix)
    head = f"{model}{_HEAD_OF_C4}"
    is_c4 = head + STEM not in names  # heads with a stem hold a ResNet of their own
    layers: dict[str, str] = {}
    for name in names:
        if is_c4 and name.startswith(f"{head}res5."):
            layer = canonical_only(name.removeprefix(head))
        else:
            layer = canonical_only(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if layer:
            layers[name] = layer
    return layers
