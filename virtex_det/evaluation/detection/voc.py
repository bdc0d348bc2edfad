"""AP of PASCAL VOC, 11-point or area, at IoU .50 to .95: Detectron2's numbers, in arrays."""

import io
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from virtex_det.data.datasets.found import DIFFICULT, Found
from virtex_det.data.datasets.ids import check_unique
from virtex_det.data.datasets.voc import (
    VOCImage,
    annotation_path,
    check_class,
    image_set_file,
    read_image_set,
    read_voc_image,
)
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.detections import Detections
from virtex_det.evaluation.detection.validation import Findings, check_boxes, check_detections

logger = logging.getLogger(__name__)

THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
# VOC's development kit has the 11-point metric until 2009, and the area since 2010.
_METRIC_OF_YEAR = {2007: "11point", 2012: "area"}


class Objects(NamedTuple):
    """The annotated objects of one image."""

    classes: np.ndarray  # shape: (M,), int64, indices of class names
    boxes: (
        np.ndarray
    )  # shape: (M, 4): the file's xmin, ymin, xmax, ymax, counted from 1, last pixel included
    difficult: np.ndarray  # shape: (M,), bool: difficult objects do not count, missed or found


class VOCGroundTruth:
    """The objects of an image set of PASCAL VOC."""

    style = "voc"
    has_masks = False
    has_annotations = True

    def __init__(
        self, images: dict[str, Objects], sizes: np.ndarray, class_names: Sequence[str], year: int
    ) -> None:
        """
        Args:
            images: objects by image name, in the order of the image set.
            sizes: height and width of the images. # shape: (I, 2)
            class_names: the objects' classes are indices of these names.
            year: 2007 for the 11-point metric, or 2012 for the area.
        """
        if year not in _METRIC_OF_YEAR:
            raise UserError(
                f"VOC {year}: expected the year {' or '.join(map(str, _METRIC_OF_YEAR))}."
            )
        check_unique(
            list(class_names), "class", "The names of VOC's classes are their ids: name each once."
        )
        self.images = images
        self.sizes = sizes
        self.class_names = tuple(class_names)
        self.metric = _METRIC_OF_YEAR[year]
        self.source = f"VOC{year}"

    @classmethod
    def read(
        cls, folder: str | Path, split: str, class_names: Sequence[str], year: int
    ) -> "VOCGroundTruth":
        """Read the annotations of an image set.

        Args:
            folder: holds ``Annotations`` and ``ImageSets/Main``.
            split: name of the image set, such as "test".
            class_names: the classes to evaluate; objects of other classes are left out, as in
                Detectron2.
            year: 2007 or 2012.

        Raises:
            UserError: a file is missing or cannot be read.
        """
        folder = Path(folder)
        images = {
            name: read_voc_image(annotation_path(folder, name))
            for name in read_image_set(folder, split)
        }
        _note_other_classes(folder, images, class_names)
        places = {name: place for place, name in enumerate(class_names)}
        sizes = np.array([(image.height, image.width) for image in images.values()], np.int64)
        objects = {name: _objects(image, places) for name, image in images.items()}
        truth = cls(objects, sizes, class_names, year)
        truth.source = str(image_set_file(folder, split))
        truth.tell_of_boxes_outside()
        return truth

    @classmethod
    def of_found(cls, found: Found, year: int, source: str) -> "VOCGroundTruth":
        """Return the ground truth of data in VOC's format that are named by where they lie.

        Args:
            found: what ``read_found`` returned.
            year: 2007 or 2012, for the metric.
            source: name of the data in messages.
        """
        content = found.content
        categories = sorted(content["categories"], key=lambda category: category["id"])
        places = {category["id"]: place for place, category in enumerate(categories)}
        of_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
        for entry in content["annotations"]:
            of_image[entry["image_id"]].append(entry)
        images = {}
        for image in content["images"]:
            entries = of_image[image["id"]]
            boxes = np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4)
            # From 0 and a size to VOC's corners: counted from 1, last pixel included.
            corners = np.hstack([boxes[:, :2] + 1, boxes[:, :2] + boxes[:, 2:]])
            classes = np.array([places[entry["category_id"]] for entry in entries], np.int64)
            difficult = np.array([entry.get(DIFFICULT, 0) == 1 for entry in entries], bool)
            images[found.names[image["id"]]] = Objects(classes, corners, difficult)
        sizes = np.array([(image["height"], image["width"]) for image in content["images"]])
        names = [category["name"] for category in categories]
        truth = cls(images, sizes.reshape(-1, 2).astype(np.int64), names, year)
        truth.source = source
        return truth

    def tell_of_boxes_outside(self) -> None:
        """Log the number of boxes outside their image; such boxes are used as they are."""
        names, findings = list(self.images), Findings()
        image_of = np.repeat(
            np.arange(len(names)), [len(objects.classes) for objects in self.objects]
        )
        corners = np.concatenate([objects.boxes for objects in self.objects])
        boxes = np.hstack([corners[:, :2] - 1, corners[:, 2:] - corners[:, :2] + 1])
        check_boxes(
            boxes,
            self.sizes[image_of],
            lambda place: f"an object of image {names[image_of[place]]}",
            findings,
        )
        findings.tell(self.source)

    def image_key(self, image_id: int | str) -> int:
        """Return an image's id in the columns of detections: its index in the image set."""
        try:
            return self._places[str(image_id)]
        except KeyError:
            raise UserError(
                f"image {image_id} is not in the image set ({len(self.images)} images); "
                f"expected a name such as {next(iter(self.images))!r}."
            ) from None

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.images)}

    @cached_property
    def objects(self) -> tuple[Objects, ...]:
        """The objects of each image, by its index."""
        return tuple(self.images.values())

    @cached_property
    def first_object(self) -> np.ndarray:
        """The number of each image's first object, over the whole set. # shape: (I,)"""
        counts = np.array([len(objects.classes) for objects in self.objects], np.int64)
        return np.cumsum(counts) - counts


class VOCAveragePrecision:
    """Box AP, matched image by image; the interface is that of ``AveragePrecision``.

    In VOC a detection is matched to the object with the largest overlap, whether that object is
    taken or not. So each image can be matched alone, and five numbers per detection are kept: only
    the order in which detections claim an object needs all images.
    """

    def __init__(self, truth: VOCGroundTruth) -> None:
        """
        Args:
            truth: the image set; its year decides whether ``AP`` is the 11-point metric or the
                area.
        """
        self.truth = truth
        self._parts: list[np.ndarray] = []
        self._seen: set[int] = set()
        self._findings = Findings()

    def update(self, image_ids: Sequence[int], detections: Detections) -> None:
        """Add images and their detections.

        Args:
            image_ids: ``truth.image_key`` of the images; each once per evaluation.
            detections: the detections of these images; boxes as in Detectron2, category_ids are
                indices of class names.

        Raises:
            UserError: invalid data, as ``validation`` says.
        """
        known = np.array(sorted(image_ids), np.int64)
        self._see(image_ids)
        classes = np.arange(len(self.truth.class_names))
        check_detections(detections, known, self.truth.sizes[known], classes, self._findings)
        for image_id in image_ids:
            self._parts.append(
                self._match(image_id, detections.take(detections.image_ids == image_id))
            )

    def state(self) -> bytes:
        """Return this process's part of the evaluation, for ``merge_states``."""
        file = io.BytesIO()
        findings = np.frombuffer(self._findings.to_json().encode(), np.uint8)
        np.savez(
            file,
            claims=self._claims(),
            seen=np.array(sorted(self._seen), np.int64),
            findings=findings,
        )
        return file.getvalue()

    def merge_states(self, states: Iterable[bytes]) -> None:
        """Replace this process's state by the union of the given states."""
        self._parts, self._seen, self._findings = [], set(), Findings()
        for state in states:
            with np.load(io.BytesIO(state), allow_pickle=False) as columns:
                self._see(columns["seen"].tolist())
                self._parts.append(columns["claims"])
                self._findings.add_json(columns["findings"].tobytes().decode())

    def result(self) -> dict[str, float]:
        """Return all numbers in percent; images that were not added count as without detections.

        Returns:
            AP, AP50, AP75 by the year's metric, ``AP_11point`` ... ``AP75_area`` by both metrics,
            and ``AP-NAME`` of each class. A class without objects is NaN and not part of the means.
        """
        self._findings.tell(f"bbox detections for {self.truth.source}")
        claims = self._claims()
        tables = {metric: self._table(claims, metric) for metric in _METRIC_OF_YEAR.values()}
        absent = np.isnan(tables["area"]).all(axis=1)
        if absent.any():
            names = ", ".join(np.array(self.truth.class_names)[absent])
            logger.warning(
                f"{absent.sum()} classes have no object and are not in the means: {names}"
            )
        return self._numbers(tables)

    def names(self) -> list[str]:
        """Return the names of the numbers of ``result``, without an evaluation."""
        nothing = np.full((len(self.truth.class_names), len(THRESHOLDS)), math.nan)
        return list(self._numbers(dict.fromkeys(_METRIC_OF_YEAR.values(), nothing)))

    def _numbers(self, tables: Mapping[str, np.ndarray]) -> dict[str, float]:
        numbers = _means(tables[self.truth.metric], "")
        for metric, table in tables.items():
            numbers |= _means(table, f"_{metric}")
        of_classes = tables[self.truth.metric].mean(axis=1)
        return numbers | {
            f"AP-{name}": float(ap)
            for name, ap in zip(self.truth.class_names, of_classes, strict=True)
        }

    def _see(self, image_ids: Sequence[int]) -> None:
        for image_id in image_ids:
            if image_id in self._seen:
                raise UserError(
                    f"image {image_id} was evaluated twice; its detections would count double."
                )
            if not 0 <= image_id < len(self.truth.images):
                raise UserError(
                    f"image {image_id} is not in the image set of {len(self.truth.images)} images."
                )
            self._seen.add(image_id)

    def _match(self, image_id: int, detections: Detections) -> np.ndarray:
        """Return (N, 5): image, class, score, overlap with the claimed object, and that object."""
        objects = self.truth.objects[image_id]
        overlap, claimed = (
            np.full(len(detections.scores), -np.inf),
            np.zeros(len(detections.scores)),
        )
        if len(objects.classes) and len(detections.scores):
            overlaps = _overlaps(_as_written(detections.boxes), objects.boxes)
            overlaps[detections.category_ids[:, None] != objects.classes] = -np.inf
            overlap, claimed = (
                overlaps.max(axis=1),
                overlaps.argmax(axis=1) + self.truth.first_object[image_id],
            )
        # Detectron2 writes float32 scores with three decimals.
        scores = np.rint(detections.scores.astype(np.float32).astype(np.float64) * 1000) / 1000
        return np.column_stack(
            [detections.image_ids, detections.category_ids, scores, overlap, claimed]
        )

    def _claims(self) -> np.ndarray:
        """Return all matches in the order of the image set. # shape: (N, 5)"""
        claims = np.concatenate([np.zeros((0, 5)), *self._parts])
        return claims[np.argsort(claims[:, 0], kind="stable")]

    def _table(self, claims: np.ndarray, metric: str) -> np.ndarray:
        """Return AP in percent by class and threshold. # shape: (C, 10)"""
        classes = np.concatenate(
            [np.zeros(0, np.int64), *(objects.classes for objects in self.truth.objects)]
        )
        difficult = np.concatenate(
            [np.zeros(0, bool), *(objects.difficult for objects in self.truth.objects)]
        )
        positives = np.bincount(classes[~difficult], minlength=len(self.truth.class_names))
        table = np.full((len(positives), len(THRESHOLDS)), math.nan)
        for place in np.flatnonzero(positives):
            of_class = claims[claims[:, 1] == place]
            # Not a stable sort, as in the original: rounding makes many scores equal, and their
            # order changes the numbers.
            of_class = of_class[np.argsort(-of_class[:, 2])]
            for column, threshold in enumerate(THRESHOLDS):
                recall, precision = _curve(of_class, difficult, positives[place], threshold)
                table[place, column] = 100 * _AVERAGES[metric](recall, precision)
        return table


def _objects(image: VOCImage, places: dict[str, int]) -> Objects:
    kept = [entry for entry in image.objects if entry.name in places]
    classes = np.array([places[entry.name] for entry in kept], np.int64)
    boxes = np.array([entry.box for entry in kept], np.float64).reshape(-1, 4)
    return Objects(classes, boxes, np.array([entry.difficult for entry in kept], bool))


def _note_other_classes(
    folder: Path, images: dict[str, VOCImage], class_names: Sequence[str]
) -> None:
    """Log the number of objects of other classes; refuse misspelled class names."""
    spellings = {name.strip().casefold() for name in class_names}
    others: list[str] = []
    for name, image in images.items():
        for number, entry in enumerate(image.objects, start=1):
            if entry.name not in class_names:
                path = annotation_path(folder, name)
                if entry.name.strip().casefold() in spellings or not entry.name.strip():
                    check_class(path, number, entry.name, class_names)
                others.append(f"{path}, object {number} ({entry.name[:40]})")
    if others:
        logger.warning(
            f"{len(others)} objects of classes that are not evaluated are left out; the first: "
            f"{others[0]}"
        )


def _as_written(boxes: np.ndarray) -> np.ndarray:
    """Return corners as in Detectron2's VOC results files: counted from 1, with one decimal."""
    low = boxes[:, :2].astype(np.float32) + np.float32(1)
    high = (boxes[:, :2] + boxes[:, 2:]).astype(np.float32)
    return np.rint(np.hstack([low, high]).astype(np.float64) * 10) / 10


def _overlaps(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return the IoU of boxes that include their last pixel. # shape: (N, M)"""
    low = np.maximum(boxes[:, None, :2], objects[:, :2])
    high = np.minimum(boxes[:, None, 2:], objects[:, 2:])
    shared = np.maximum(high - low + 1.0, 0.0).prod(axis=2)
    areas, object_areas = (
        (corners[:, 2:] - corners[:, :2] + 1.0).prod(axis=1) for corners in (boxes, objects)
    )
    return shared / (areas[:, None] + object_areas - shared)


def _curve(
    claims: np.ndarray, difficult: np.ndarray, positives: int, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision after each detection of a class, the best first."""
    matched = claims[:, 3] > threshold
    claimed = claims[:, 4].astype(np.int64)
    counted = matched & ~difficult[claimed] if len(difficult) else matched
    is_first = np.zeros(len(claims), bool)
    rows = np.flatnonzero(counted)
    is_first[rows[np.unique(claimed[rows], return_index=True)[1]]] = True
    true = np.cumsum(is_first)
    false = np.cumsum(~matched | (counted & ~is_first))
    return true / positives, true / np.maximum(true + false, np.finfo(np.float64).eps)


def _eleven_points(recall: np.ndarray, precision: np.ndarray) -> float:
    """Return the mean over recalls 0, .1, ... 1 of the best precision at that recall or above."""
    return (
        sum(precision[recall >= level].max(initial=0.0) for level in np.arange(0.0, 1.1, 0.1)) / 11
    )


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    """Return the area under the curve of the best precision at each recall or above."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * best).sum())


def _means(table: np.ndarray, suffix: str) -> dict[str, float]:
    of_present = table[~np.isnan(table).all(axis=1)]
    means = of_present.mean(axis=0) if len(of_present) else np.full(len(THRESHOLDS), math.nan)
    columns = {"AP50": THRESHOLDS.index(0.5), "AP75": THRESHOLDS.index(0.75)}
    numbers = {"AP": means.mean(), **{name: means[column] for name, column in columns.items()}}
    return {f"{name}{suffix}": float(value) for name, value in numbers.items()}


_AVERAGES = {"11point": _eleven_points, "area": _area}
