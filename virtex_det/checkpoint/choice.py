"""Choosing the network of a file with several, and reporting the others."""

import difflib
import re
from collections.abc import Iterable, Sequence

import torch

from virtex_det.checkpoint.backbones import backbone_names
from virtex_det.checkpoint.families import Found, is_at
from virtex_det.checkpoint.formats import SAME_NAMES
from virtex_det.checkpoint.names import COUNTER
from virtex_det.checkpoint.networks import Network, without_wrappers
from virtex_det.checkpoint.weights import Weights
from virtex_det.errors import UserError


def _is_below(network: Network, prefix: str) -> bool:
    above = f"{prefix.strip('.')}."
    return any(
        text.startswith(above) for text in (network.location, network.prefix, network.plain_prefix)
    )


def at_prefix(
    found: list[Found], prefix: str, path: str, networks: Iterable[Network]
) -> list[Found]:
    """Return the networks at or below MODEL.WEIGHTS_PREFIX.

    Raises:
        UserError: there is no such network.
    """
    here = [each for each in found if is_at(each.network, prefix)] or [
        each for each in found if _is_below(each.network, prefix)
    ]
    exact = [each for each in here if each.network.location.strip(".") == prefix.strip(".")]
    if here:
        return exact or here
    known = [each.network.location for each in found] or [network.location for network in networks]
    nearest = difflib.get_close_matches(prefix, known, n=5, cutoff=0) or known[:5]
    advice = "No network was found in the file."
    if nearest:
        advice = f"Set it to the prefix of a network in the file: {', '.join(nearest)}"
    raise UserError(
        f"{path} has no network under MODEL.WEIGHTS_PREFIX {prefix!r}; nothing was loaded.\n"
        f"{advice}"
    )


def choose(found: Sequence[Found], path: str, like: Sequence[str]) -> Weights:
    """Return the network to load, with a note on the other networks in the file.

    Raises:
        UserError: there are several networks, and no rule chooses one of them.
    """
    whole = (
        [each for each in found if each.weights.is_whole]
        if found[0].weights.is_resnet
        else _fullest(found, like)
    )
    # A network that its family prefers to a whole one stays a candidate even if it is not whole, so
    # that the other one never replaces it silently.
    preferred = [each for each in found if any(each is one or _is_over(each, one) for one in whole)]
    candidates = preferred or list(found)
    winners = _winners(candidates)
    if not winners and (exact := _with_all_names(candidates, like)):
        winners = exact
    if not winners:
        raise UserError(_several(candidates, path))
    chosen = winners[0]
    if not set(like) <= set(chosen.weights.rest) and (exact := _with_all_names([chosen], like)):
        chosen = exact[0]  # a detector inside a model, with the names that the detector has alone
    # With the model's own names, all networks of the place are loaded.
    all_taken = chosen.weights.format is SAME_NAMES and chosen.weights.is_resnet
    others = [
        each
        for each in found
        if each.network is not chosen.network
        and not (all_taken and each.network.place is chosen.network.place)
    ]
    reason = _reason(chosen, others)
    return chosen.weights._replace(choice=reason)


def _fullest(found: Sequence[Found], like: Sequence[str]) -> list[Found]:
    """Return the networks with every layer of a model's backbone, or else the one with most."""
    layers = {layer for layer in backbone_names(like).values() if not layer.endswith(COUNTER)}
    full = [each for each in found if layers <= set(each.weights.backbone)]
    return full or [max(found, key=lambda each: len(layers & set(each.weights.backbone)))]


def _with_all_names(candidates: Sequence[Found], like: Sequence[str]) -> list[Found]:
    """Return the network whose place has every tensor of a model under the model's own names."""
    names = {name for name in like if not name.endswith(COUNTER)}
    if not names:
        return []
    exact = []
    for each in candidates:
        tensors = each.network.place.tensors
        rest = {without_wrappers(name): name for name in tensors}
        if names <= set(rest) and len(rest) == len(tensors):
            exact.append(Found(each.network, each.weights._replace(format=SAME_NAMES, rest=rest)))
    return exact if len({each.network.place.keys for each in exact}) == 1 else []


def _winners(candidates: Sequence[Found]) -> list[Found]:
    """Return the networks preferred to all others; an average only if its network is clear."""
    winners = [
        each for each in candidates if all(_goes_before(each, other) for other in candidates)
    ]
    raw = [each for each in candidates if not each.network.is_averaged]
    if winners and winners[0].network.is_averaged and raw and not _winners(raw):
        return []
    return winners


def _is_over(one: Found, other: Found) -> bool:
    """Whether the family of ``one`` prefers it to the other."""
    location = other.network.plain_location
    return one is not other and any(
        re.search(pattern, location) for pattern in one.weights.format.over
    )


def _goes_before(one: Found, other: Found) -> bool:
    if one is other or _are_equal(one.weights, other.weights) or _is_over(one, other):
        return True
    if other.network.is_raw and not one.network.is_raw and _same_shapes(one.weights, other.weights):
        return True
    return (
        one.network.is_averaged
        and not other.network.is_averaged
        and _same_shapes(one.weights, other.weights)
    )


def _same_shapes(one: Weights, other: Weights) -> bool:
    def shapes(weights: Weights) -> dict[str, torch.Size]:
        return {
            layer: weights.tensors[name].shape
            for layer, name in weights.backbone.items()
            if not layer.endswith(COUNTER)
        }

    return shapes(one) == shapes(other)


def _are_equal(one: Weights, other: Weights) -> bool:
    """Whether two networks of a file are the same one under two names."""
    if not _same_shapes(one, other):
        return False
    pairs = (
        (one.tensors[one.backbone[layer]], other.tensors[other.backbone[layer]])
        for layer in one.backbone
        if not layer.endswith(COUNTER)
    )
    return all(
        first.dtype == second.dtype and torch.equal(first, second) for first, second in pairs
    )


def _reason(chosen: Found, others: Sequence[Found]) -> str:
    words = []
    count = chosen.network.averaged_count
    if count == 0:
        words.append(
            "n_averaged is 0: nothing was averaged yet, these are the weights before averaging"
        )
    elif chosen.network.is_averaged:
        words.append("these are averaged weights" + (f" (n_averaged {count})" if count else ""))
    if any(each.network.is_raw for each in others) and not chosen.network.is_raw:
        words.append("these are the averaged weights of Lightning's WeightAveraging")
    if others:
        words.append(
            f"not loaded: {', '.join(each.network.location for each in others)}; "
            "set MODEL.WEIGHTS_PREFIX to load another"
        )
    return "; ".join(words)


def _several(candidates: Sequence[Found], path: str) -> str:
    lines = "".join(
        f"\n  {each.network.location}  ({_what(each.weights)})" for each in candidates[:8]
    )
    more = f"\n  and {len(candidates) - 8} more" if len(candidates) > 8 else ""
    return (
        f"{path} holds {len(candidates)} networks, and it is not clear which one to load; "
        f"nothing was loaded:{lines}{more}\n"
        f"Choose one of them: MODEL.WEIGHTS_PREFIX {candidates[0].network.location}"
    )


def _what(weights: Weights) -> str:
    if not weights.is_resnet:
        return f"{len(weights.backbone)} tensors"
    name = weights.architecture.name
    return name if weights.is_whole else f"{name}, incomplete"
