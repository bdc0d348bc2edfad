"""Finding the network in a weights file, and its family."""

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
    """Find the network in the content of a file, and its family.

    Args:
        content: the result of `read_file`.
        path: the file's name in messages.
        family: the network's family, whatever the names show; "" for the first that fits.
        prefix: the network's prefix (MODEL.WEIGHTS_PREFIX); "" if there is only one network.
        like: the names of a model. If its backbone is not a ResNet, or the file has several
            networks, the network with these names is chosen.

    Raises:
        UserError: there is no network of a known or the named family; there are several, and no
            rule chooses one; or no family has that name.
    """
    layers = backbone_names(like)
    places = _places(content, path)
    is_resnet = not like or any(layer.startswith("res2.") for layer in layers.values())
    networks = find_networks(places) if is_resnet else find_like(places, layers.values())
    if len(networks) > _MOST_NETWORKS:
        raise UserError(
            f"{path} holds {len(networks):,} networks, more than {_MOST_NETWORKS}; nothing was "
            "loaded. Save the one to load to a separate file."
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
    """Add a remark on averages without names, which are not loaded."""
    if not (unnamed := unnamed_averages(places)):
        return weights
    averages = f"the averages in {', '.join(unnamed)} have no names and are not loaded"
    return weights._replace(choice="; ".join(filter(None, [weights.choice, averages])))


def _unknown(content: Any, places: Sequence[Place], path: str, family: str) -> str:
    names = next((list(place.tensors)[:5] for place in places if place.tensors), _keys(content))
    unreadable = [name for place in places for name in sorted(place.unreadable)]
    lines = [
        f"{path} is not a weights file of "
        f"{f'the family {family}' if family else 'a known family'}; nothing was loaded.",
        f"Its first names: {', '.join(names) or f'none, it is a {type(content).__name__}'}",
    ]
    lines += [
        *reasons.of_names(name for place in places for name in place.tensors),
        *reasons.of_path(path),
    ]
    if unreadable:
        lines.append(
            "Quantised, sparse or other objects instead of plain tensors: "
            f"{', '.join(unreadable[:3])}"
        )
    lines += [
        f"Known families: {', '.join(entry.name for entry in FORMATS)}",
        "A network must have its first convolution and its blocks under one prefix. To name its "
        "family: MODEL.WEIGHTS_FORMAT NAME",
    ]
    return "\n".join(lines)


def _wanted(layers: Mapping[str, str]) -> str:
    """Return the first names of a backbone that is not a ResNet, and the ResNets in it."""
    begin = f"\nThe backbone of the model begins with {', '.join([*layers.values()][:3])}"
    inside = [name.removesuffix(STEM) for name in layers if name.endswith(STEM)]
    if not inside:
        return begin
    return (
        f"{begin}\n"
        f"It contains {len(inside)} of Detectron2's ResNets ({' and '.join(inside)}) and can only "
        "be filled as a whole."
    )


def _keys(content: Any) -> list[str]:
    return [str(key) for key in content][:5] if isinstance(content, Mapping) else []
