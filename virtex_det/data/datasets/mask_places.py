"""Check that polygons lie where the boxes of their objects are."""

import logging
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from virtex_det.errors import UserError

logger = logging.getLogger(__name__)

_OBJECTS = 20_000  # checked at most, at even distances; more take seconds
_PIXELS_APART = 2.0  # allowed distance between a polygon and its box, by rounding


def check_mask_places(
    masks: Sequence[Sequence[Sequence[float]]],
    boxes: Sequence[Sequence[float]] | np.ndarray,
    name: Callable[[int], str],
    source: str,
) -> None:
    """Refuse polygons if most lie away from the boxes of their objects; count them otherwise.

    Such polygons are in fractions of the image, or for another size of the image.

    Args:
        masks: polygons of each object: x and y in turn, in pixels; each has at least one.
        boxes: x1, y1, x2, y2 of each object. # shape: (N, 4)
        name: returns the name of an object in messages, by its index.
        source: name of the dataset in messages.

    Raises:
        UserError: most polygons lie elsewhere.
    """
    step = max(1, -(-len(masks) // _OBJECTS))
    masks = masks[::step]
    if not masks:
        return
    corners = np.asarray(boxes, np.float64)[::step]
    begin = np.minimum(corners[:, :2], corners[:, 2:])
    end = np.maximum(corners[:, :2], corners[:, 2:])
    low, high = _extents(masks)
    apart = np.any((low > end + _PIXELS_APART) | (high < begin - _PIXELS_APART), axis=1)
    fractions = np.all((low >= 0) & (high <= 1), axis=1) & np.any(end - begin > 4, axis=1)
    wrong = apart | fractions
    if not wrong.any():
        return
    first = int(np.flatnonzero(wrong)[0])
    example = (
        f"{name(first * step)} has polygons from {low[first].tolist()} to {high[first].tolist()} "
        f"and a box from {begin[first].tolist()} to {end[first].tolist()}"
    )
    if wrong.mean() <= 0.5:
        logger.warning(
            "%s: %d of %d checked masks lie away from their boxes; the first: %s",
            source,
            int(wrong.sum()),
            len(wrong),
            example,
        )
        return
    advice = "Write polygons and boxes in pixels of the same image."
    if fractions.any():
        advice = "They look like fractions: multiply them by the width and height of their image."
    raise UserError(
        f"{int(wrong.sum())} of {len(wrong)} checked masks lie away from the boxes of their "
        f"objects.\nThe first: {example}.\n{advice}"
    )


def _extents(masks: Sequence[Sequence[Sequence[float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and largest x and y of each object. # shape: (N, 2) each"""
    sizes = [sum(map(len, polygons)) // 2 for polygons in masks]
    numbers = chain.from_iterable(chain.from_iterable(masks))
    points = np.fromiter(numbers, np.float64, 2 * sum(sizes)).reshape(-1, 2)
    starts = np.cumsum([0, *sizes[:-1]])
    return np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
