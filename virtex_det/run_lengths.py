"""Validation of run-length masks: on invalid ones, libraries hang, crash or stay silent."""

from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any

import numpy as np

from virtex_det.errors import UserError

# A character holds 5 bits of a run, lowest first, and a flag that another follows; a run has at
# most 32 bits.
_FIRST, _BITS, _FOLLOWED, _SIGN = ord("0"), 0x1F, 0x20, 0x10
LONGEST_RUN = 7
# Masks per pass: as many as fit into a processor's cache.
_CHUNK = 200


def is_run_lengths(value: Any, kinds: type | UnionType) -> bool:
    """Return whether a value is {"size": [height, width], "counts": ...} with such counts."""
    if not isinstance(value, Mapping) or not isinstance(value.get("counts"), kinds):
        return False
    size = value.get("size")
    if not isinstance(size, list) or len(size) != 2:
        return False
    return all(type(side) is int and 0 < side < 2**31 for side in size)


def check_run_lengths(rles: Sequence[Mapping[str, Any]], name: Callable[[int], str]) -> None:
    """Check that compressed masks are whole, many per pass.

    Args:
        rles: masks {"size": [height, width], "counts": str or bytes}.
        name: returns the name of a mask in an error, by its index.

    Raises:
        UserError: a mask has invalid characters, is truncated, or its runs do not add up to its
            size.
    """
    for start in range(0, len(rles), _CHUNK):
        _check_chunk(rles[start : start + _CHUNK], _counted_from(start, name))


def _counted_from(start: int, name: Callable[[int], str]) -> Callable[[int], str]:
    return lambda place: name(start + place)


def _check_chunk(rles: Sequence[Mapping[str, Any]], name: Callable[[int], str]) -> None:
    texts = [
        rle["counts"].encode(errors="surrogatepass")
        if isinstance(rle["counts"], str)
        else rle["counts"]
        for rle in rles
    ]
    runs, firsts = _decode(texts, name)
    if runs.min() < 0:
        _refuse(np.minimum.reduceat(runs, firsts) < 0, "a run of negative length", name)
    found = np.add.reduceat(runs, firsts)
    expected = np.array([rle["size"] for rle in rles], np.int64).prod(axis=1)
    for place in np.flatnonzero(found != expected)[:1]:
        height, width = rles[place]["size"]
        raise UserError(
            f"{name(place)} has a mask whose runs add up to {found[place]} pixels; expected "
            f"{height} x {width} = {expected[place]}. Was it truncated, or made for another size?"
        )


def _decode(texts: list[bytes], name: Callable[[int], str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the runs of all masks, concatenated, and the index of each mask's first run."""
    lengths = np.array(list(map(len, texts)))
    _refuse(lengths == 0, "no runs", name)
    characters = np.frombuffer(b"".join(texts), np.uint8) - np.uint8(_FIRST)
    mask_starts = np.cumsum(lengths) - lengths
    if characters.max() >= 2 * _FOLLOWED:
        foreign = np.logical_or.reduceat(characters >= 2 * _FOLLOWED, mask_starts)
        _refuse(foreign, "invalid characters", name)
    is_last = characters < _FOLLOWED
    _refuse(~is_last[mask_starts + lengths - 1], "a truncated mask", name)
    ends = np.flatnonzero(is_last)
    firsts = np.searchsorted(ends, mask_starts)
    digits = ends.copy()
    digits[0] += 1
    digits[1:] -= ends[:-1]
    if digits.max() > LONGEST_RUN:
        _refuse(
            np.maximum.reduceat(digits, firsts) > LONGEST_RUN, "a run longer than any image", name
        )
    return _undo_differences(_numbers(characters, ends, digits), firsts), firsts


def _numbers(characters: np.ndarray, ends: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """Return the signed numbers of the groups of characters; nearly all groups have one."""
    numbers = (characters[ends].astype(np.int64) ^ _SIGN) - _SIGN
    for digit in range(1, digits.max()):
        longer = np.flatnonzero(digits > digit)
        numbers[longer] = (numbers[longer] << 5) | (characters[ends[longer] - digit] & _BITS)
    return numbers


def _undo_differences(numbers: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """Undo the storage as differences: from a mask's fourth run on, to the run before the last.

    A run is the running sum over every other number, minus its value at the start of the mask.
    """
    runs = np.empty_like(numbers)
    ends = np.append(firsts[1:], len(numbers))
    before = np.where(firsts > 0, firsts - 1, 0)
    for parity in (0, 1):
        sums = np.cumsum(numbers[parity::2])
        is_at_first = firsts % 2 == parity
        base = np.where(is_at_first, firsts, before) // 2
        begun = np.where(
            is_at_first | (firsts > 0), sums[np.minimum(base, len(sums) - 1)] if len(sums) else 0, 0
        )
        counts = (ends - parity + 1) // 2 - (firsts - parity + 1) // 2
        runs[parity::2] = sums - np.repeat(begun, counts)
    runs[firsts] = numbers[firsts]
    return runs


def _refuse(wrong: np.ndarray, what: str, name: Callable[[int], str]) -> None:
    for place in np.flatnonzero(wrong)[:1]:
        raise UserError(
            f"{name(place)} has {what}; expected compressed run lengths as "
            "pycocotools.mask.encode makes them."
        )
