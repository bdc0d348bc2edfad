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
    if not 0 < fraction <= 1:
        raise UserError(f"DATASETS.TRAIN_FRACTION is {fraction}; it must be above 0 and at most 1 (0.1 takes 10 %)")
    # 1e-9 keeps 0.07 * 100 = 7.000000000000001 from becoming 8.
    count = math.ceil(fraction * len(dicts) - 1e-9)
    ranked = sorted(range(len(dicts)), key=lambda position: _rank(seed, dicts[position]["image_id"]))
    return [dicts[position] for position in sorted(ranked[:count])]


def manifest_sha256(dicts: Iterable[dict[str, Any]]) -> str:
    """Return the sha256 of the sorted image ids: equal for equal choices of images, whatever their order."""
    ids = sorted(str(entry["image_id"]) for entry in dicts)
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def _rank(seed: int, image_id: int | str) -> bytes:
    return hashlib.sha256(f"{seed}/{image_id}".encode()).digest()
