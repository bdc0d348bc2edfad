"""What a data set has, in numbers: objects of each class, sizes, and what training leaves out."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from virtex_det.data.datasets import find_missing, load_dataset
from virtex_det.data.datasets.objects import why_not_trained_on

SMALL, LARGE = 32, 96  # pixels; between these lie COCO's objects of medium size
_BEYOND = 2.0, 0.02  # pixels, and share of the image, by which a box may reach beyond it
_THIN, _SLIM = 2, 20  # pixels of a side, and ratio of the sides
_WHOLE = 0.99  # of both sides of the image


class Objects(NamedTuple):
    """All objects of a data set, crowds too.

    Attributes:
        boxes: x0, y0, x1, y1 in pixels. # shape: (N, 4)
        images: index of the image of each. # shape: (N,)
        classes: class numbers. # shape: (N,)
        crowds: which are crowds. # shape: (N,) bool
        masks: "polygon", "run lengths", or "" for a box alone. # shape: (N,)
    """

    boxes: np.ndarray
    images: np.ndarray
    classes: np.ndarray
    crowds: np.ndarray
    masks: np.ndarray

    @property
    def sides(self) -> np.ndarray:
        """The square root of each box's area, without crowds and empty boxes, in pixels."""
        extent = (self.boxes[:, 2:] - self.boxes[:, :2])[~self.crowds]
        return np.sqrt(extent[(extent > 0).all(axis=1)].prod(axis=1))


class Odd(NamedTuple):
    """Objects that are worth a look.

    Attributes:
        what: their oddity, after the word "boxes".
        places: their indices in ``Objects``.
    """

    what: str
    places: np.ndarray


class Survey(NamedTuple):
    """What a data set has.

    Attributes:
        name: of the data set.
        dicts: its dataset dicts.
        classes: names of its classes; empty for images without labels.
        sizes: height and width of its images, NaN where they are unknown. # shape: (images, 2)
        objects: of all images.
        missing: images without a file.
        notes: warnings of the reader, a sentence each.
    """

    name: str
    dicts: list[dict[str, Any]]
    classes: tuple[str, ...]
    sizes: np.ndarray
    objects: Objects
    missing: int
    notes: tuple[str, ...]

    @property
    def is_labelled(self) -> bool:
        """Whether its images have annotations at all."""
        return any("annotations" in entry for entry in self.dicts)

    @property
    def counts(self) -> dict[str, int]:
        """The number of objects of each class, without crowds."""
        found = Counter(self.objects.classes[~self.objects.crowds].tolist())
        return {title: found[number] for number, title in enumerate(self.classes)}

    def title(self, number: int) -> str:
        """Return the name of a class, or its number in data without names."""
        return self.classes[number] if self.classes else str(number)


def survey(name: str) -> Survey:
    """Load a data set and count what it has.

    Args:
        name: a registered data set, or a name that says where the data lie.

    Raises:
        UserError: as ``load_dataset``.
    """
    with collected_warnings() as notes:
        dicts = load_dataset(name)
    sizes = [[entry.get(side) or np.nan for side in ("height", "width")] for entry in dicts]
    return Survey(
        name,
        dicts,
        tuple(map(str, MetadataCatalog.get(name).get("thing_classes") or ())),
        np.array(sizes, float),
        _objects(dicts),
        len(find_missing(dicts)),
        tuple(dict.fromkeys(notes)),
    )


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Yield a list that takes this package's warnings within the block, instead of the log."""
    found: list[str] = []
    logger = logging.getLogger("virtex_det")
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    propagates, handlers = logger.propagate, logger.handlers
    logger.propagate, logger.handlers = False, [handler]
    try:
        yield found
    finally:
        logger.propagate, logger.handlers = propagates, handlers


def left_out(survey: Survey) -> dict[str, int]:
    """Return the annotations that training leaves out, counted by the reason.

    What the reader leaves out is in the survey's notes.
    """
    reasons: Counter[str] = Counter()
    for entry in survey.dicts:
        for annotation in entry.get("annotations") or ():
            if reason := why_not_trained_on(entry, annotation):
                reasons[reason] += 1
    return dict(reasons.most_common())


def images_without_objects(survey: Survey) -> int:
    """Return how many images have no object but crowds, which training leaves out."""
    objects = survey.objects
    return len(survey.dicts) - len(np.unique(objects.images[~objects.crowds]))


def odd_objects(survey: Survey) -> list[Odd]:
    """Return the objects, other than crowds, whose boxes are worth a look."""
    objects = survey.objects
    boxes, sizes = objects.boxes, survey.sizes[objects.images][:, ::-1]
    extent = boxes[:, 2:] - boxes[:, :2]
    slack = np.maximum(_BEYOND[0], _BEYOND[1] * sizes)
    is_beyond = ((boxes[:, :2] < -slack) | (boxes[:, 2:] > sizes + slack)).any(axis=1)
    is_real = (extent > 0).all(axis=1)
    shortest, longest = extent.min(axis=1, initial=np.inf), extent.max(axis=1, initial=0)
    twice, two_classes = _repeated(objects)
    found = {
        "beyond their image": is_beyond,
        "without width or height": ~is_real,
        f"less than {_THIN} pixels wide or high": is_real & (shortest < _THIN),
        f"more than {_SLIM} times as long as wide": is_real & (longest > _SLIM * shortest),
        "as large as their image": (extent >= _WHOLE * sizes).all(axis=1),
        "that repeat another one of their class": twice,
        "that an object of another class has, too": two_classes,
    }
    places = {what: np.flatnonzero(odd & ~objects.crowds) for what, odd in found.items()}
    return [Odd(what, odd) for what, odd in places.items() if len(odd)]


def _repeated(objects: Objects) -> tuple[np.ndarray, np.ndarray]:
    """Return which objects repeat an earlier box of their class, and which one of another class."""
    seen: dict[tuple[float, ...], set[int]] = {}
    same, other = np.zeros((2, len(objects.boxes)), bool)
    rows = np.column_stack([objects.images, objects.boxes]).tolist()
    for place, (row, number) in enumerate(zip(rows, objects.classes.tolist(), strict=True)):
        classes = seen.setdefault(tuple(row), set())
        same[place], other[place] = number in classes, bool(classes - {number})
        classes.add(number)
    return same, other


def mask_keys(surveys: Sequence[Survey]) -> dict[str, Any]:
    """Return the config keys of the masks that training data have: all objects, or boxes alone."""
    kinds: set[str] = set()
    for found in surveys:
        kinds |= set(found.objects.masks[~found.objects.crowds].tolist())
    if not kinds or "" in kinds:
        return {"MODEL.MASK_ON": False}
    return {
        "MODEL.MASK_ON": True,
        "INPUT.MASK_FORMAT": "bitmask" if "run lengths" in kinds else "polygon",
    }


def _objects(dicts: Sequence[Mapping[str, Any]]) -> Objects:
    found = [
        (place, entry)
        for place, image in enumerate(dicts)
        for entry in image.get("annotations", ())
    ]
    boxes = [_corners(entry) for _, entry in found]
    return Objects(
        np.array(boxes, float).reshape(-1, 4),
        np.array([place for place, _ in found], int),
        np.array([entry["category_id"] for _, entry in found], int),
        np.array([bool(entry.get("iscrowd", 0)) for _, entry in found], bool),
        np.array([_kind_of_mask(entry.get("segmentation")) for _, entry in found], str),
    )


def _corners(entry: Mapping[str, Any]) -> list[float]:
    box = [*map(float, entry["bbox"])]
    if entry["bbox_mode"] == BoxMode.XYWH_ABS:
        return [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    return box if entry["bbox_mode"] == BoxMode.XYXY_ABS else [np.nan] * 4


def _kind_of_mask(mask: Any) -> str:
    if not mask:
        return ""
    return "polygon" if isinstance(mask, list) else "run lengths"
