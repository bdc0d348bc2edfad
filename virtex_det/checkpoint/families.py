"""Takes a network of a file as one of a family: its tensors by canonical name, and what else belongs to it."""

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
    """A network of a file, and what it is once its family is known."""

    network: Network
    weights: Weights


class Named(NamedTuple):
    """What the config says of the file: whether its family, and where the network begins."""

    family: bool
    prefix: str


def entries_of(family: str) -> tuple[Format, ...]:
    """Return the families to try: all, or those that a name stands for.

    Raises:
        UserError: there is none of that name.
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
    # The one of this name, then those that it may look like.
    return tuple(sorted(entries, key=lambda entry: entry.name != family))


def as_known(network: Network, entries: Iterable[Format], named: Named) -> Found | None:
    """Take a network as the first family that it fits; None where there is none."""
    for entry in entries:
        weights = _as_family(network, entry, named)
        if weights and _has_first_layers(weights) and _has_stem_of(weights):
            return Found(network, weights)
    return None


def _as_family(network: Network, entry: Format, named: Named) -> Weights | None:
    """Take a network as one of a family; None where its names or its place are another's."""
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
    """Whether MODEL.WEIGHTS_PREFIX names this network: by keys and prefix, by the prefix alone, or without wrappers."""
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
    if entry.detectron2_names and own_prefix:  # a C4 detector has its last stage in the head
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
    # Caffe2 writes a bias of zeros beside the first convolution, which has none in Detectron2.
    if not canonical.endswith(".bias") or ".norm." in canonical:
        return False
    return all(source in tensors and not tensors[source].any() for source in sources)


def found_like(network: Network, layers: Iterable[str]) -> Found:
    """Take what lies under a prefix by the names of a model's backbone, and what lies beside it by the model's."""
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
    # CLIP's blocks have torchvision's names; what tells them apart is three convolutions in the
    # stem.
    is_deep = "stem.conv2.weight" in weights.backbone
    return weights.format.stem is None or is_deep == (weights.format.stem != "basic")
