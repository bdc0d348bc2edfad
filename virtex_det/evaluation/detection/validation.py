"""Validation before AP is computed: invalid data is an error or a counted warning, never a number.

The libraries are silent about most invalid data, and hang or crash on the rest.
"""

import contextlib
import itertools
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from virtex_det.errors import UserError
from virtex_det.evaluation.detection.detections import Detections
from virtex_det.run_lengths import check_run_lengths, is_run_lengths

logger = logging.getLogger(__name__)

# Rounded annotations, and detectors that do not clip their boxes, stay within it.
PIXELS_OUTSIDE = 1.0
_NUMBERS = frozenset((int, float))  # not bool, nor text that NumPy would read as a number
_FREQUENCIES = ("r", "c", "f")


class Findings:
    """Warnings, counted over a whole evaluation and logged once per kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def note(self, what: str, wrong: np.ndarray, name: Callable[[int], str]) -> None:
        """Count the entries where ``wrong`` is true; keep the first one's name as an example."""
        for place in np.flatnonzero(wrong)[:1]:
            self.counts[what] += int(wrong.sum())
            self.examples.setdefault(what, name(place))

    def to_json(self) -> str:
        """Return the findings as JSON, for ``add_json``."""
        return json.dumps({"counts": self.counts, "examples": self.examples})

    def add_json(self, text: str) -> None:
        """Add the findings of another process."""
        found = json.loads(text)
        self.counts.update(found["counts"])
        self.examples = found["examples"] | self.examples

    def tell(self, where: str) -> None:
        """Log one line per kind, and start again."""
        for what, count in self.counts.items():
            logger.warning(f"{where}: {count} x {what}; the first: {self.examples[what]}")
        self.counts.clear()
        self.examples.clear()


def check_boxes(
    boxes: np.ndarray, sizes: np.ndarray, name: Callable[[int], str], findings: Findings
) -> None:
    """Refuse boxes that are not finite; count boxes of negative size and boxes outside their image.

    Args:
        boxes: x, y, width, height. # shape: (N, 4)
        sizes: height and width of their images. # shape: (N, 2)
        name: returns the name of an entry in messages, by its index.
        findings: counts the warnings.
    """
    for place in np.flatnonzero(~np.isfinite(boxes).all(axis=1))[:1]:
        raise UserError(
            f"{name(place)} has the box {boxes[place].tolist()}; expected four finite numbers in "
            "pixels."
        )
    corner, extent = boxes[:, :2], boxes[:, 2:]
    findings.note(
        "box of negative width or height, treated as in COCO's code",
        np.any(extent < 0, axis=1),
        name,
    )
    beyond = corner + extent - sizes[:, ::-1]
    outside = np.any((corner < -PIXELS_OUTSIDE) | (beyond > PIXELS_OUTSIDE), axis=1)
    findings.note(
        f"box more than {PIXELS_OUTSIDE:g} pixel outside its image, left as it is", outside, name
    )


def check_detections(
    detections: Detections,
    image_ids: np.ndarray,
    sizes: np.ndarray,
    category_ids: np.ndarray,
    findings: Findings,
    *,
    own_masks: bool = False,
) -> None:
    """Check detections in one pass over the columns.

    Args:
        detections: the detections of a batch of images, or of a whole file.
        image_ids: known images, ascending. # shape: (I,)
        sizes: height and width of these images. # shape: (I, 2)
        category_ids: categories of the annotation file, ascending. # shape: (C,)
        findings: counts the warnings.
        own_masks: the masks were encoded here, so their run lengths need no check.

    Raises:
        UserError: an id is unknown, a score or box is not finite, or a mask is invalid or of
            another size.
    """

    def name(place: int) -> str:
        return name_detection(detections, place)

    _check_lengths(detections)
    check_known(detections.image_ids, image_ids, "image", name)
    check_known(detections.category_ids, category_ids, "category", name)
    for place in np.flatnonzero(~np.isfinite(detections.scores))[:1]:
        raise UserError(
            f"{name(place)}: expected a finite score. NaN comes from weights or losses that "
            "diverged."
        )
    of_images = sizes[np.searchsorted(image_ids, detections.image_ids)]
    check_boxes(detections.boxes, of_images, name, findings)
    if detections.rles is not None:
        check_mask_sizes(detections.rles, of_images, name)
        if not own_masks:
            check_run_lengths(detections.rles, name)


def name_detection(detections: Detections, place: int) -> str:
    """Return a detection's name in messages."""
    image_id, category_id, score, box = (column[place].tolist() for column in detections[:4])
    return f"the detection of image {image_id}, category {category_id}, score {score:g}, box {box}"


def check_known(
    found: np.ndarray, known: np.ndarray, what: str, name: Callable[[int], str]
) -> None:
    """Refuse ids that are not among `known`, which is ascending."""
    places = np.minimum(np.searchsorted(known, found), max(len(known) - 1, 0))
    unknown = known[places] != found if len(known) else np.ones(len(found), bool)
    for place in np.flatnonzero(unknown)[:1]:
        several = (
            f"{np.count_nonzero(unknown)} such entries, " if np.count_nonzero(unknown) > 1 else ""
        )
        raise UserError(
            f"{name(place)} has {what} {found[place]}, which the annotations do not have "
            f"({several}{len(known)} "
            f"known{f', {known[0]} to {known[-1]}' if len(known) else ''}).\n"
            "Were they made for another dataset?"
        )


def check_mask_sizes(
    rles: Sequence[Mapping[str, Any]], sizes: np.ndarray, name: Callable[[int], str]
) -> None:
    """Refuse masks whose height and width differ from their images'."""
    wrong = (np.array([rle["size"] for rle in rles]).reshape(-1, 2) != sizes).any(axis=1)
    for place in np.flatnonzero(wrong)[:1]:
        raise UserError(
            f"{name(place)} has a mask of size {list(rles[place]['size'])}; "
            f"its image has [height, width] {sizes[place].tolist()}."
        )


def _check_lengths(detections: Detections) -> None:
    masks = [] if detections.rles is None else [len(detections.rles)]
    lengths = {*(len(column) for column in detections[:4]), *masks}
    if len(lengths) > 1 or detections.boxes.shape[1:] != (4,):
        raise UserError(
            f"The columns of the detections have lengths {sorted(lengths)} and boxes of shape "
            f"{detections.boxes.shape}; expected one length N and boxes of shape (N, 4)."
        )


def is_number(value: Any) -> bool:
    """Return whether a value of a JSON file is a finite number that arrays can hold."""
    return type(value) in (int, float) and abs(value) < 1e300


def check_fields(
    entries: Iterable[Mapping[str, Any]], fields: Sequence[str], what: str, advice: str
) -> None:
    """Refuse entries that lack a field."""
    for place, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise UserError(
                f"{what} {place} of the list is {entry!r:.80}; expected fields {', '.join(fields)}."
            )
        absent = [field for field in fields if field not in entry]
        if absent:
            raise UserError(f"{what} {entry.get('id')} has no {', '.join(absent)}.\n{advice}")


def check_frequencies(categories: Iterable[Mapping[str, Any]]) -> None:
    """Refuse categories of LVIS that are not rare, common or frequent."""
    for category in categories:
        if not isinstance(category["frequency"], str) or category["frequency"] not in _FREQUENCIES:
            raise UserError(
                f"category {category['id']} has frequency {category['frequency']!r}; "
                "expected r (rare), c (common) or f (frequent)."
            )


def check_segmentations(annotations: Sequence[Mapping[str, Any]], sizes: np.ndarray) -> None:
    """Check the masks of ground truth: polygons, or run lengths, compressed or not.

    Args:
        annotations: annotations with ``segmentation``.
        sizes: height and width of their images. # shape: (N, 2)

    Raises:
        UserError: a library would hang or crash on a mask, or misread it.
    """
    is_rle = [isinstance(annotation["segmentation"], Mapping) for annotation in annotations]
    polygons = [place for place, found in enumerate(is_rle) if not found]
    rles = [place for place, found in enumerate(is_rle) if found]
    for place in polygons:
        _check_polygons(annotations[place])
    _check_finite(annotations, polygons)
    _check_rles([annotations[place] for place in rles], sizes[rles])


def _check_polygons(annotation: Mapping[str, Any]) -> None:
    parts = annotation["segmentation"]
    if (
        not isinstance(parts, list)
        or not parts
        or not all(isinstance(part, list) for part in parts)
    ):
        raise UserError(
            f"annotation {annotation['id']} has segmentation {parts!r:.80}; expected polygons or "
            "run lengths."
        )
    for part in parts:
        if len(part) < 6 or len(part) % 2:
            raise UserError(
                f"annotation {annotation['id']} has a polygon of {len(part)} numbers; expected x "
                "and y of at least 3 points. Remove such parts, or the annotation if it has no "
                "other."
            )


def _check_finite(annotations: Sequence[Mapping[str, Any]], polygons: Sequence[int]) -> None:
    """Check the numbers of all polygons at once; search for the polygon only if one is invalid."""
    rows = [part for place in polygons for part in annotations[place]["segmentation"]]
    if all(_NUMBERS.issuperset(map(type, part)) for part in rows):
        with contextlib.suppress(OverflowError):
            if np.isfinite(np.fromiter(itertools.chain.from_iterable(rows), np.float64)).all():
                return
    for place in polygons:
        for value in itertools.chain.from_iterable(annotations[place]["segmentation"]):
            if not is_number(value):
                raise UserError(
                    f"annotation {annotations[place]['id']} has {value!r} in a polygon; expected "
                    "finite numbers."
                )


def _check_rles(annotations: Sequence[Mapping[str, Any]], sizes: np.ndarray) -> None:
    def name(place: int) -> str:
        return f"annotation {annotations[place]['id']}"

    rles = [annotation["segmentation"] for annotation in annotations]
    for place, rle in enumerate(rles):
        if not is_run_lengths(rle, str | list):
            raise UserError(
                f"{name(place)} has segmentation {rle!r:.80}; "
                'expected {"size": [h, w], "counts": ...}.'
            )
    check_mask_sizes(rles, sizes, name)
    for place, rle in enumerate(rles):
        counts = rle["counts"]
        if isinstance(counts, list) and not all(type(count) is int for count in counts):
            raise UserError(f"{name(place)} has runs {counts!r:.80}; expected integers.")
        if isinstance(counts, list) and (
            sum(counts) != sizes[place].prod() or min(counts, default=0) < 0
        ):
            raise UserError(
                f"{name(place)} has a mask whose runs add up to {sum(counts)} pixels; "
                f"expected {sizes[place].prod()}, and no negative run."
            )
    compressed = [place for place, rle in enumerate(rles) if isinstance(rle["counts"], str)]
    check_run_lengths([rles[place] for place in compressed], lambda place: name(compressed[place]))
