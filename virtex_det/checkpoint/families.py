"""Matching a network of a file with its family, which renames its tensors."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch

from virtex_det.checkpoint.formats import FORMATS, SAME_NAMES, Format
from virtex_det.checkpoint.names import canonical_only
from virtex_det.checkpoint.networks import Network, below
from virtex_det.checkpoint.weights import Weights
from virtex_det.errors import UserError


class Found(NamedTuple):
    """A network of a file with its renamed tensors."""

    network: Network
    weights: Weights


class Named(NamedTuple):
    """The config's information on the file."""

    family: bool  # MODEL.WEIGHTS_FORMAT names its family
    prefix: str  # MODEL.WEIGHTS_PREFIX


def entries_of(family: str) -> tuple[Format, ...]:
    """Return the families to try: all, or those with this name.

    Raises:
        UserError: no family has this name.
    """
    if not family:
        return FORMATS
    entries = tuple(entry for entry in FORMATS if family in (entry.name, *entry.also))
    if not entries:
        known = sorted({name for entry in FORMATS for name in (entry.name, *entry.also)})
        nearest = difflib.get_close_matches(family, known, cutoff=0.4)
        raise UserError(
            f"There is no weights family {family!r} (MODEL.WEIGHTS_FORMAT). "
            f"The nearest: {', '.join(nearest) or 'none'}; all: {', '.join(known)}"
        )
    # The family itself before those that list the name under ``also``.
    return tuple(sorted(entries, key=lambda entry: entry.name != family))


def as_known(network: Network, entries: Iterable[Format], named: Named) -> Found | None:
    """Match a network with the first family that fits; None if no family does."""
    for entry in entries:
        weights = _as_family(network, entry, named)
        if weights and _has_first_layers(weights) and _has_stem_of(weights):
            return Found(network, weights)
    return None


def _as_family(network: Network, entry: Format, named: Named) -> Weights | None:
    """Match a network with a family; None if its names or its place do not fit."""
    own = re.search(rf"(?<![^.])(?:{entry.prefix})$", network.plain_prefix)
    is_here = (
        own is not None and re.fullmatch(entry.place, ".".join(network.place.keys)) is not None
    )
    if not is_here and not (named.family and is_at(network, named.prefix)):
        return None
    own_prefix = own[0] if own else ""
    siblings = below(network.root(own_prefix), network.place.tensors)
    if not named.family and not _is_marked(entry, siblings):
        return None
    return _sort_tensors(network, entry, own_prefix, siblings)


def is_at(network: Network, prefix: str) -> bool:
    """Whether MODEL.WEIGHTS_PREFIX names this network, with or without its keys and wrappers."""
    if not prefix:
        return False
    wanted = prefix.strip(".")
    return wanted in {
        text.strip(".") for text in (network.location, network.prefix, network.plain_prefix)
    }


def _sort_tensors(
    network: Network, entry: Format, own_prefix: str, siblings: Mapping[str, list[str]]
) -> Weights:
    tensors, layers = network.place.tensors, network.local
    if entry.detectron2_names and own_prefix:  # in a C4 detector the last stage is in the head
        head = {layer: names for name, names in siblings.items() if (layer := _in_head(name))}
        layers = {
            layer: [*layers.get(layer, ()), *head.get(layer, ())] for layer in [*layers, *head]
        }
    backbone: dict[str, list[str]] = {}
    for name, sources in layers.items():
        if (canonical := entry.rename(name)) and not _is_zero_bias(canonical, sources, tensors):
            backbone.setdefault(canonical, []).extend(sources)
    rest: dict[str, str] = {}
    for name, sources in siblings.items():
        model_name = (
            name
            if entry.detectron2_names
            else entry.rename_rest(name)
            if entry.rename_rest
            else None
        )
        if model_name and len(sources) == 1:
            rest[model_name] = sources[0]
    return Weights(
        entry,
        tensors,
        {canonical: sources[0] for canonical, sources in backbone.items() if sources[0] in tensors},
        rest,
        repeated={
            canonical: tuple(sources) for canonical, sources in backbone.items() if len(sources) > 1
        },
        unreadable={
            canonical: sources[0]
            for canonical, sources in backbone.items()
            if sources[0] not in tensors
        },
        location=network.location,
    )


def _in_head(name: str) -> str | None:
    layer = name.removeprefix("roi_heads.")
    return canonical_only(layer) if layer != name and layer.startswith("res5.") else None


def _is_zero_bias(
    canonical: str, sources: Sequence[str], tensors: Mapping[str, torch.Tensor]
) -> bool:
    # Caffe2 writes a bias of zeros for the first convolution; Detectron2's has no bias.
    if not canonical.endswith(".bias") or ".norm." in canonical:
        return False
    return all(source in tensors and not tensors[source].any() for source in sources)


def found_like(network: Network, layers: Iterable[str]) -> Found:
    """Match a network that is not a ResNet, by the names of the model and its backbone."""
    tensors, local = network.place.tensors, network.local
    own = re.search(r"(?<![^.])backbone\.(?:bottom_up\.|net\.)?$", network.plain_prefix)
    siblings = below(network.root(own[0]), tensors) if own else local
    wanted = set(layers)
    weights = Weights(
        SAME_NAMES,
        tensors,
        {
            layer: names[0]
            for layer, names in local.items()
            if names[0] in tensors and (own or _shares(layer, wanted))
        },
        {name: names[0] for name, names in siblings.items() if len(names) == 1},
        repeated={layer: tuple(names) for layer, names in local.items() if len(names) > 1},
        unreadable={layer: names[0] for layer, names in local.items() if names[0] not in tensors},
        location=network.location,
        is_resnet=False,
    )
    return Found(network, weights)


def _shares(layer: str, wanted: set[str]) -> bool:
    first = layer.partition(".")[0]
    return layer in wanted or any(name.partition(".")[0] == first for name in wanted)


def _is_marked(entry: Format, names: Iterable[str]) -> bool:
    text = "\n".join(names)

    def found(pattern: str) -> bool:
        return re.search(pattern, text, re.MULTILINE) is not None

    return all(map(found, entry.marks)) and not any(map(found, entry.absent))


def _has_first_layers(weights: Weights) -> bool:
    layers = {**weights.backbone, **weights.unreadable}
    return "stem.conv1.weight" in layers and "res2.0.conv1.weight" in layers


def _has_stem_of(weights: Weights) -> bool:
    # CLIP's blocks have torchvision's names, but its stem has three convolutions.
    is_deep = "stem.conv2.weight" in weights.backbone
    return weights.format.stem is None or is_deep == (weights.format.stem != "basic")
