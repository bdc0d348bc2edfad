"""Finds the network in a weights file, and the family that it belongs to."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from virtex_det.checkpoint import reasons
from virtex_det.checkpoint.architecture import Architecture, describe
from virtex_det.checkpoint.formats import FORMATS, OWN_CHECKPOINT, SAME_NAMES, Format
from virtex_det.checkpoint.inside import Inside, facts_inside, unusual_inside
from virtex_det.checkpoint.names import backbone_names, canonical_only
from virtex_det.checkpoint.networks import (
    LONGEST_NAME,
    TOP_LEVEL,
    Network,
    Place,
    below,
    find_like,
    find_networks,
    find_places,
    long_name,
    unnamed_averages,
    without_wrappers,
)
from virtex_det.errors import UserError

_STAGES = ("res2", "res3", "res4", "res5")
_COUNTER = ".num_batches_tracked"
_MOST_NETWORKS = 50  # in a file


class Weights(NamedTuple):
    """The tensors of a file and where a model's are among them."""

    format: Format
    tensors: dict[str, torch.Tensor]  # by their names in the file
    backbone: dict[str, str]  # canonical name -> name in the file
    rest: dict[str, str]  # name in a Detectron2 model -> name in the file
    repeated: dict[str, tuple[str, ...]] = {}  # canonical name -> names in the file, more than one
    unreadable: dict[str, str] = {}  # canonical name -> name of what is no plain tensor
    location: str = TOP_LEVEL  # keys and prefix in the file
    choice: str = ""  # what else was there, and why this was taken
    assumed: str = ""  # of the network, what nothing tells
    is_resnet: bool = True

    def sources(self, names: Iterable[str]) -> dict[str, str]:
        """Return for each of a model's tensors that the file has one for, its name in the file.

        A file with all of a model's own names is taken by these. Otherwise the backbone is taken by what its layers
        are, wherever the model has them.
        """
        names = list(names)
        layers = backbone_names(names)
        if all(name in self.rest for name in layers if not name.endswith(_COUNTER)):
            return {name: self.rest[name] for name in names if name in self.rest}
        found = {}
        for name in names:
            source = self.backbone.get(layers[name]) if name in layers else self.rest.get(name)
            if source is not None:
                found[name] = source
        return found

    @property
    def architecture(self) -> Architecture:
        """The network that the tensors belong to."""
        backbone = {canonical: self.tensors[name] for canonical, name in self.backbone.items()}
        return describe(backbone, self.format.stem, self.format.downsample)

    @property
    def is_whole(self) -> bool:
        """Whether a ResNet has its stem and every stage, from the first block on and without a gap."""
        blocks: dict[str, set[int]] = {stage: set() for stage in _STAGES}
        for canonical in self.backbone:
            if match := re.match(r"(res\d)\.(\d+)\.", canonical):
                blocks[match[1]].add(int(match[2]))
        return "stem.conv1.weight" in self.backbone and all(
            found and found == set(range(len(found))) for found in blocks.values()
        )


class _Found(NamedTuple):
    network: Network
    weights: Weights


class _Named(NamedTuple):
    """What the config says of the file: whether its family, and where the network begins."""

    family: bool
    prefix: str


def recognise(content: Any, path: str, family: str = "", prefix: str = "", like: Sequence[str] = ()) -> Weights:
    """Find the network in what was read from a file, and its family: one whole network, from one place.

    Args:
        content: what `read_file` returned.
        path: for the message.
        family: take it as this one, whatever the names say; "" for the first that fits.
        prefix: the network that begins here (MODEL.WEIGHTS_PREFIX); "" for the only one that there is.
        like: the names of a model. Where its backbone is no ResNet, or it has several, what has these names is meant.

    Raises:
        UserError: there is no network of a known family, or not of the one named; or there are several, and nothing
            says which is meant; or there is no family of that name.
    """
    entries = _named_entries(family) if family else FORMATS
    places = _places(content, path)
    layers = backbone_names(like)
    is_resnet = not like or any(layer.startswith("res2.") for layer in layers.values())
    networks = find_networks(places) if is_resnet else find_like(places, layers.values())
    if len(networks) > _MOST_NETWORKS:
        raise UserError(
            f"{path} holds {len(networks):,} networks, more than {_MOST_NETWORKS}; nothing was loaded. Save the one "
            "to load in a file of its own."
        )
    if is_resnet:
        named = _Named(bool(family), prefix)
        found = [each for network in networks if (each := _as_known(network, entries, named))]
    else:
        found = [_found_like(network, layers.values()) for network in networks]
    if prefix:
        found = _at_prefix(found, prefix, path, networks)
    if not found:
        raise UserError(_unknown(content, path, family) + ("" if is_resnet else _wanted(layers.values())))
    return _with_facts_inside(_without_unnamed(_choose(found, path, like), places), content, path)


def own_weights(content: Any) -> Weights:
    """Return the model in a run's own checkpoint; its tensors have the model's own names."""
    model = content.get("model") if isinstance(content, Mapping) else None
    named = model.items() if isinstance(model, Mapping) else ()
    tensors = {str(name): value for name, value in named if isinstance(value, torch.Tensor)}
    backbone = {canonical: name for name, canonical in backbone_names(tensors).items()}
    return Weights(OWN_CHECKPOINT, tensors, backbone, {name: name for name in tensors}, location="model.")


def _places(content: Any, path: str) -> list[Place]:
    places = find_places(content)
    if name := long_name(places):
        raise UserError(
            f"{path} has a tensor with a name of {len(name):,} characters, more than {LONGEST_NAME}: {name[:40]!r} ..."
        )
    return places


def _without_unnamed(weights: Weights, places: Iterable[Place]) -> Weights:
    """Say of averages that nothing names that they are not taken."""
    if not (unnamed := unnamed_averages(places)):
        return weights
    averages = f"the averages in {', '.join(unnamed)} have no names and are not taken"
    return weights._replace(choice="; ".join(filter(None, [weights.choice, averages])))


def _named_entries(family: str) -> tuple[Format, ...]:
    entries = tuple(entry for entry in FORMATS if family in (entry.name, *entry.also))
    if not entries:
        known = sorted({name for entry in FORMATS for name in (entry.name, *entry.also)})
        nearest = difflib.get_close_matches(family, known, cutoff=0.4)
        raise UserError(
            f"There is no weights family {family!r} (MODEL.WEIGHTS_FORMAT). "
            f"The nearest: {', '.join(nearest) or 'none'}; all: {', '.join(known)}"
        )
    return tuple(sorted(entries, key=lambda entry: entry.name != family))  # then those that it may look like


def _as_known(network: Network, entries: Iterable[Format], named: _Named) -> _Found | None:
    for entry in entries:
        weights = _as_family(network, entry, named)
        if weights and _has_first_layers(weights) and _has_stem_of(weights):
            return _Found(network, weights)
    return None


def _as_family(network: Network, entry: Format, named: _Named) -> Weights | None:
    """Take a network as one of a family; None where its names or its place are another's."""
    own = re.search(rf"(?<![^.])(?:{entry.prefix})$", network.plain_prefix)
    is_here = own is not None and re.fullmatch(entry.place, ".".join(network.place.keys)) is not None
    if not is_here and not (named.family and _is_at(network, named.prefix)):
        return None
    own_prefix = own[0] if own else ""
    siblings = below(network.root(own_prefix), network.place.tensors)
    if not named.family and not _is_marked(entry, siblings):
        return None
    return _sort_tensors(network, entry, own_prefix, siblings)


def _sort_tensors(network: Network, entry: Format, own_prefix: str, siblings: Mapping[str, list[str]]) -> Weights:
    tensors, layers = network.place.tensors, network.local
    if entry.detectron2_names and own_prefix:  # a C4 detector has its last stage in the head
        head = {layer: names for name, names in siblings.items() if (layer := _in_head(name))}
        layers = {layer: [*layers.get(layer, ()), *head.get(layer, ())] for layer in [*layers, *head]}
    backbone: dict[str, list[str]] = {}
    for name, sources in layers.items():
        if (canonical := entry.rename(name)) and not _is_zero_bias(canonical, sources, tensors):
            backbone.setdefault(canonical, []).extend(sources)
    rest: dict[str, str] = {}
    for name, sources in siblings.items():
        model_name = name if entry.detectron2_names else entry.rename_rest(name) if entry.rename_rest else None
        if model_name and len(sources) == 1:
            rest[model_name] = sources[0]
    return Weights(
        entry,
        tensors,
        {canonical: sources[0] for canonical, sources in backbone.items() if sources[0] in tensors},
        rest,
        repeated={canonical: tuple(sources) for canonical, sources in backbone.items() if len(sources) > 1},
        unreadable={canonical: sources[0] for canonical, sources in backbone.items() if sources[0] not in tensors},
        location=network.location,
    )


def _in_head(name: str) -> str | None:
    layer = name.removeprefix("roi_heads.")
    return canonical_only(layer) if layer != name and layer.startswith("res5.") else None


def _is_zero_bias(canonical: str, sources: Sequence[str], tensors: Mapping[str, torch.Tensor]) -> bool:
    # Caffe2 writes a bias of zeros beside the first convolution, which has none in Detectron2.
    if not canonical.endswith(".bias") or ".norm." in canonical:
        return False
    return all(source in tensors and not tensors[source].any() for source in sources)


def _found_like(network: Network, layers: Iterable[str]) -> _Found:
    """Take what lies under a prefix by the names of a model's backbone, and what lies beside it by the model's."""
    tensors, local = network.place.tensors, network.local
    own = re.search(r"(?<![^.])backbone\.(?:bottom_up\.|net\.)?$", network.plain_prefix)
    siblings = below(network.root(own[0]), tensors) if own else local
    wanted = set(layers)
    weights = Weights(
        SAME_NAMES,
        tensors,
        {layer: names[0] for layer, names in local.items() if names[0] in tensors and (own or _shares(layer, wanted))},
        {name: names[0] for name, names in siblings.items() if len(names) == 1},
        repeated={layer: tuple(names) for layer, names in local.items() if len(names) > 1},
        unreadable={layer: names[0] for layer, names in local.items() if names[0] not in tensors},
        location=network.location,
        is_resnet=False,
    )
    return _Found(network, weights)


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
    # CLIP's blocks have torchvision's names; what tells them apart is three convolutions in the stem.
    is_deep = "stem.conv2.weight" in weights.backbone
    return weights.format.stem is None or is_deep == (weights.format.stem != "basic")


def _is_at(network: Network, prefix: str) -> bool:
    """Whether MODEL.WEIGHTS_PREFIX names this network: by keys and prefix, by the prefix alone, or without wrappers."""
    if not prefix:
        return False
    wanted = prefix.strip(".")
    return wanted in {text.strip(".") for text in (network.location, network.prefix, network.plain_prefix)}


def _is_below(network: Network, prefix: str) -> bool:
    above = f"{prefix.strip('.')}."
    return any(text.startswith(above) for text in (network.location, network.prefix, network.plain_prefix))


def _at_prefix(found: list[_Found], prefix: str, path: str, networks: Iterable[Network]) -> list[_Found]:
    here = [each for each in found if _is_at(each.network, prefix)] or [
        each for each in found if _is_below(each.network, prefix)
    ]
    exact = [each for each in here if each.network.location.strip(".") == prefix.strip(".")]
    if here:
        return exact or here
    known = [each.network.location for each in found] or [network.location for network in networks]
    nearest = difflib.get_close_matches(prefix, known, n=5, cutoff=0) or known[:5]
    raise UserError(
        f"{path} has no network under MODEL.WEIGHTS_PREFIX {prefix!r}; nothing was loaded.\n"
        f"Networks in the file begin with: {', '.join(nearest) or 'none was found'}"
    )


def _choose(found: Sequence[_Found], path: str, like: Sequence[str]) -> Weights:
    """Return the one network to load, with a note on what else the file holds."""
    whole = [each for each in found if each.weights.is_whole] if found[0].weights.is_resnet else _fullest(found, like)
    # What its family takes before a whole one is meant, whole or not: it must not be replaced in silence.
    meant = [each for each in found if any(each is one or _is_over(each, one) for one in whole)]
    candidates = meant or list(found)
    winners = _winners(candidates)
    if not winners and (exact := _with_all_names(candidates, like)):
        winners = exact
    if not winners:
        raise UserError(_several(candidates, path))
    chosen = winners[0]
    all_taken = chosen.weights.format is SAME_NAMES and chosen.weights.is_resnet  # by the names of the whole model
    others = [
        each
        for each in found
        if each.network is not chosen.network and not (all_taken and each.network.place is chosen.network.place)
    ]
    reason = _reason(chosen, others)
    return chosen.weights._replace(choice=reason)


def _fullest(found: Sequence[_Found], like: Sequence[str]) -> list[_Found]:
    """Return those with every layer of a model's backbone; where none has, the one with most."""
    layers = {layer for layer in backbone_names(like).values() if not layer.endswith(_COUNTER)}
    full = [each for each in found if layers <= set(each.weights.backbone)]
    return full or [max(found, key=lambda each: len(layers & set(each.weights.backbone)))]


def _with_all_names(candidates: Sequence[_Found], like: Sequence[str]) -> list[_Found]:
    """Return the one with every tensor of a model that has several networks in it, by the model's own names."""
    names = {name for name in like if not name.endswith(_COUNTER)}
    if not names:
        return []
    exact = []
    for each in candidates:
        tensors = each.network.place.tensors
        rest = {without_wrappers(name): name for name in tensors}
        if names <= set(rest) and len(rest) == len(tensors):
            exact.append(_Found(each.network, each.weights._replace(format=SAME_NAMES, rest=rest)))
    return exact if len({each.network.place.keys for each in exact}) == 1 else []


def _winners(candidates: Sequence[_Found]) -> list[_Found]:
    """Return those that go before all others; an average only where it is clear which network it is of."""
    winners = [each for each in candidates if all(_goes_before(each, other) for other in candidates)]
    raw = [each for each in candidates if not each.network.is_averaged]
    if winners and winners[0].network.is_averaged and raw and not _winners(raw):
        return []
    return winners


def _is_over(one: _Found, other: _Found) -> bool:
    """Whether one's family takes it before the other."""
    location = other.network.plain_location
    return one is not other and any(re.search(pattern, location) for pattern in one.weights.format.over)


def _goes_before(one: _Found, other: _Found) -> bool:
    if one is other or _are_equal(one.weights, other.weights) or _is_over(one, other):
        return True
    if other.network.is_raw and not one.network.is_raw and _same_shapes(one.weights, other.weights):
        return True
    return one.network.is_averaged and not other.network.is_averaged and _same_shapes(one.weights, other.weights)


def _same_shapes(one: Weights, other: Weights) -> bool:
    def shapes(weights: Weights) -> dict[str, torch.Size]:
        return {
            layer: weights.tensors[name].shape
            for layer, name in weights.backbone.items()
            if not layer.endswith(_COUNTER)
        }

    return shapes(one) == shapes(other)


def _are_equal(one: Weights, other: Weights) -> bool:
    """Whether two networks of a file are one, stored under two names."""
    if not _same_shapes(one, other):
        return False
    pairs = (
        (one.tensors[one.backbone[layer]], other.tensors[other.backbone[layer]])
        for layer in one.backbone
        if not layer.endswith(_COUNTER)
    )
    return all(first.dtype == second.dtype and torch.equal(first, second) for first, second in pairs)


def _reason(chosen: _Found, others: Sequence[_Found]) -> str:
    words = []
    count = chosen.network.averaged_count
    if count == 0:
        words.append("n_averaged is 0: nothing was averaged yet, these are the weights that averaging begins with")
    elif chosen.network.is_averaged:
        words.append("these are averaged weights" + (f" (n_averaged {count})" if count else ""))
    if any(each.network.is_raw for each in others) and not chosen.network.is_raw:
        words.append("these are the averaged weights of Lightning's WeightAveraging")
    if others:
        words.append(f"not taken: {', '.join(each.network.location for each in others)}; MODEL.WEIGHTS_PREFIX chooses")
    return "; ".join(words)


def _several(candidates: Sequence[_Found], path: str) -> str:
    lines = "".join(f"\n  {each.network.location}  ({_what(each.weights)})" for each in candidates[:8])
    more = f"\n  and {len(candidates) - 8} more" if len(candidates) > 8 else ""
    return (
        f"{path} holds {len(candidates)} networks, and it is not clear which to load; "
        f"nothing was loaded:{lines}{more}\n"
        f"Name one of them: MODEL.WEIGHTS_PREFIX {candidates[0].network.location}"
    )


def _what(weights: Weights) -> str:
    if not weights.is_resnet:
        return f"{len(weights.backbone)} tensors"
    name = weights.architecture.name
    return name if weights.is_whole else f"{name}, not whole"


def _with_facts_inside(weights: Weights, content: Any, path: str) -> Weights:
    """Add what the file says of its pixels, strides and pools; refuse a network that computes something else."""
    network = weights.architecture if weights.is_resnet else None
    file = Inside(content, weights.format, weights.tensors, weights.rest, network)
    if unusual := unusual_inside(file):
        raise UserError(
            f"{path} is another network than this package builds: {unusual}, which its shapes do not show.\n"
            "Its features would be others; nothing was loaded. To take its tensors all the same, save those of the "
            "backbone in a file of their own."
        )
    return weights._replace(format=weights.format._replace(**facts_inside(file)))


def _unknown(content: Any, path: str, family: str) -> str:
    places = find_places(content)
    names = next((list(place.tensors)[:5] for place in places if place.tensors), _keys(content))
    unreadable = [name for place in places for name in sorted(place.unreadable)]
    lines = [
        f"{path} belongs to {f'no file of the family {family}' if family else 'no weights family known here'}; "
        "nothing was loaded.",
        f"Its first names: {', '.join(names) or f'none, it is a {type(content).__name__}'}",
    ]
    lines += [*reasons.of_names(name for place in places for name in place.tensors), *reasons.of_path(path)]
    if unreadable:
        lines.append(f"Not plain tensors, but quantised, sparse or other objects: {', '.join(unreadable[:3])}")
    lines += [
        f"Known families: {', '.join(entry.name for entry in FORMATS)}",
        "A network must have its first convolution and its blocks under one prefix. To take it as one of a family: "
        "MODEL.WEIGHTS_FORMAT NAME",
    ]
    return "\n".join(lines)


def _wanted(layers: Iterable[str]) -> str:
    return f"\nThe backbone of the model begins with {', '.join(list(layers)[:3])}"


def _keys(content: Any) -> list[str]:
    return [str(key) for key in content][:5] if isinstance(content, Mapping) else []
