"""Finds the network in a weights file, and the family that it belongs to."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from virtex_det.checkpoint import reasons
from virtex_det.checkpoint.backbones import STEM, backbone_names
from virtex_det.checkpoint.choice import at_prefix, choose
from virtex_det.checkpoint.families import Named, as_known, entries_of, found_like
from virtex_det.checkpoint.formats import FORMATS
from virtex_det.checkpoint.inside import told_inside
from virtex_det.checkpoint.networks import (
    LONGEST_NAME,
    Place,
    find_like,
    find_networks,
    find_places,
    long_name,
    unnamed_averages,
)
from virtex_det.checkpoint.weights import Weights
from virtex_det.errors import UserError

_MOST_NETWORKS = 50  # in a file


def recognise(
    content: Any, path: str, family: str = "", prefix: str = "", like: Sequence[str] = ()
) -> Weights:
    """Find the network in what was read from a file, and its family: one whole network, from one place.

    Args:
        content: what `read_file` returned.
        path: for the message.
        family: take it as this one, whatever the names say; "" for the first that fits.
        prefix: the network that begins here (MODEL.WEIGHTS_PREFIX); "" for the only one that there
            is.
        like: the names of a model. Where its backbone is no ResNet, or it has several, what has
            these names is meant.

    Raises:
        UserError: there is no network of a known family, or not of the one named; or there are
            several, and nothing says which is meant; or there is no family of that name.
    """
    layers = backbone_names(like)
    places = _places(content, path)
    is_resnet = not like or any(layer.startswith("res2.") for layer in layers.values())
    networks = find_networks(places) if is_resnet else find_like(places, layers.values())
    if len(networks) > _MOST_NETWORKS:
        raise UserError(
            f"{path} holds {len(networks):,} networks, more than {_MOST_NETWORKS}; nothing was "
            "loaded. Save the one to load in a file of its own."
        )
    if is_resnet:
        entries, named = entries_of(family), Named(bool(family), prefix)
        found = [each for network in networks if (each := as_known(network, entries, named))]
    else:
        found = [found_like(network, layers.values()) for network in networks]
    if prefix:
        found = at_prefix(found, prefix, path, networks)
    if not found:
        raise UserError(
            _unknown(content, places, path, family) + ("" if is_resnet else _wanted(layers))
        )
    return told_inside(content, _without_unnamed(choose(found, path, like), places), path)


def _places(content: Any, path: str) -> list[Place]:
    places = find_places(content)
    if name := long_name(places):
        raise UserError(
            f"{path} has a tensor with a name of {len(name):,} characters, more than "
            f"{LONGEST_NAME}: {name[:40]!r} ..."
        )
    return places


def _without_unnamed(weights: Weights, places: Iterable[Place]) -> Weights:
    """Say of averages that nothing names that they are not taken."""
    if not (unnamed := unnamed_averages(places)):
        return weights
    averages = f"the averages in {', '.join(unnamed)} have no names and are not taken"
    return weights._replace(choice="; ".join(filter(None, [weights.choice, averages])))


def _unknown(content: Any, places: Sequence[Place], path: str, family: str) -> str:
    names = next((list(place.tensors)[:5] for place in places if place.tensors), _keys(content))
    unreadable = [name for place in places for name in sorted(place.unreadable)]
    lines = [
        f"{path} belongs to "
        f"{f'no file of the family {family}' if family else 'no weights family known here'}; "
        "nothing was loaded.",
        f"Its first names: {', '.join(names) or f'none, it is a {type(content).__name__}'}",
    ]
    lines += [
        *reasons.of_names(name for place in places for name in place.tensors),
        *reasons.of_path(path),
    ]
    if unreadable:
        lines.append(
            "Not plain tensors, but quantised, sparse or other objects: "
            f"{', '.join(unreadable[:3])}"
        )
    lines += [
        f"Known families: {', '.join(entry.name for entry in FORMATS)}",
        "A network must have its first convolution and its blocks under one prefix. To take it "
        "as one of a family: MODEL.WEIGHTS_FORMAT NAME",
    ]
    return "\n".join(lines)


def _wanted(layers: Mapping[str, str]) -> str:
    """Return what the file lacks for a backbone that is no ResNet itself; ResNets in it are named."""
    begin = f"\nThe backbone of the model begins with {', '.join([*layers.values()][:3])}"
    inside = [name.removesuffix(STEM) for name in layers if name.endswith(STEM)]
    if not inside:
        return begin
    return (
        f"{begin}\n"
        f"It holds {len(inside)} of Detectron2's ResNets ({' and '.join(inside)}), and is filled "
        "as a whole."
    )


def _keys(content: Any) -> list[str]:
    return [str(key) for key in content][:5] if isinstance(content, Mapping) else []
