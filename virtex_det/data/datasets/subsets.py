"""Fixed parts of a data set, the same on every rank and machine."""

import hashlib
import math
from collections.abc import Iterable
from typing import Any

from virtex_det.errors import UserError


def take_fraction(dicts: list[dict[str, Any]], fraction: float, seed: int = 0) -> list[dict[str, Any]]:
    """Take a part of a data set, chosen by image id.

    Images are ranked by a hash of seed and id, and the first ones taken. So 1 % lies within 10 % of the same seed, and
    neither the order of the file nor a random generator's state can change the choice.

    Args:
        dicts: dataset dicts with "image_id", a number or a string.
        fraction: part to take, above 0 and up to 1; at least one image is taken.
        seed: another seed takes another part.

    Returns:
        The dicts taken, in their original order.

    Raises:
        UserError: the fraction is not within (0, 1].
    """
    _check_fraction(fraction)
    # 1e-9 keeps 0.07 * 100 = 7.000000000000001 from becoming 8.
    count = math.ceil(fraction * len(dicts) - 1e-9)
    ranked = sorted(range(len(dicts)), key=lambda position: _rank(seed, dicts[position]["image_id"]))
    return [dicts[position] for position in sorted(ranked[:count])]


def is_in_fraction(image_id: int | str, fraction: float, seed: int = 0) -> bool:
    """Return whether an image is in a part of a data set that is never listed whole; ``take_fraction`` for streams.

    The part is as large as chance makes it: each image is in it with the probability ``fraction``. Of one seed, smaller
    parts lie within larger ones.

    Raises:
        UserError: the fraction is not within (0, 1].
    """
    _check_fraction(fraction)
    return int.from_bytes(_rank(seed, image_id)[:8], "big") < fraction * 2**64


def take_captions(dicts: list[dict[str, Any]], per_image: int, seed: int = 0) -> list[dict[str, Any]]:
    """Take some captions of each image, chosen by image id and the caption's place; one lies within two of one seed.

    Args:
        dicts: dataset dicts with "captions", and "traces" where they are narratives.
        per_image: how many; 0 for all, and all where an image has fewer.
        seed: another seed takes others.

    Returns:
        Dicts with the captions taken, in their original order.

    Raises:
        UserError: the number is negative.
    """
    if per_image < 0:
        raise UserError(f"DATASETS.CAPTIONS_PER_IMAGE is {per_image}; it must be 0, for all, or above.")
    return [_with_captions(entry, per_image, seed) for entry in dicts] if per_image else dicts


def manifest_sha256(dicts: Iterable[dict[str, Any]]) -> str:
    """Return the sha256 of the sorted image ids: equal for equal choices of images, whatever their order."""
    ids = sorted(str(entry["image_id"]) for entry in dicts)
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def _with_captions(entry: dict[str, Any], count: int, seed: int) -> dict[str, Any]:
    places = range(len(entry["captions"]))
    taken = sorted(sorted(places, key=lambda place: _rank(seed, f"{entry['image_id']}/{place}"))[:count])
    parallel = [key for key in ("captions", "traces") if key in entry]
    return {**entry, **{key: [entry[key][place] for place in taken] for key in parallel}}


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise UserError(f"DATASETS.TRAIN_FRACTION is {fraction}; it must be above 0 and at most 1 (0.1 takes 10 %)")


def _rank(seed: int, image_id: int | str) -> bytes:
    return hashlib.sha256(f"{seed}/{image_id}".encode()).digest()
