"""The formats of COCO's and LVIS's libraries: images, objects, detections and AP tables."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import hotcoco
import numpy as np

from virtex_det.evaluation.detection.detections import Detections
from virtex_det.evaluation.detection.ground_truth import GroundTruth
from virtex_det.run_lengths import LONGEST_RUN
from virtex_det.utils import without_garbage_collection

_IMAGE_FIELDS = ("id", "height", "width", "neg_category_ids", "not_exhaustive_category_ids")


def images_of(truth: GroundTruth, image_ids: Iterable[int]) -> list[dict[str, Any]]:
    """Return images with only the fields that AP needs; libraries check other fields, too."""
    images = (truth.images[image_id] for image_id in image_ids)
    return [{name: image[name] for name in _IMAGE_FIELDS if name in image} for image in images]


def objects_of(truth: GroundTruth, image_ids: Iterable[int], task: str) -> list[dict[str, Any]]:
    """Return the objects of some images, for a library.

    ``ignore`` is left out: COCO's code overwrites it with ``iscrowd``, and LVIS does not have it.
    Ids start at 1, because 0 means "not matched" in some libraries.
    """
    objects = []
    entries = itertools.chain.from_iterable(map(truth.annotations_of, image_ids))
    for entry in entries:
        needed = {name: entry[name] for name in ("image_id", "category_id", "bbox", "area")}
        needed["id"] = entry["id"] + 1
        needed["iscrowd"] = int(bool(entry["iscrowd"])) if truth.style == "coco" else 0
        if task == "segm":
            needed["segmentation"] = entry["segmentation"]
        if truth.style == "coco" or entry["area"] > 0:
            objects.append(needed)
    return objects


def counted_detections(
    detections: Detections, truth: GroundTruth, task: str, limit: int, *, own_masks: bool = False
) -> Detections:
    """Return the detections that count.

    COCO's limit is per category, and the libraries apply it. LVIS's limit is per image; after it,
    lvis-api leaves out detections without area.
    """
    if truth.style == "coco":
        return detections
    best = _best_of_each_image(detections, limit)
    if task == "segm":
        return best.take(_have_pixels(best.rles or [], own_masks))
    return best.take(best.boxes[:, 2] * best.boxes[:, 3] > 0)


def _have_pixels(rles: Sequence[dict[str, Any]], own_masks: bool) -> np.ndarray:
    """Return which masks have a pixel.

    Our own masks have no runs of length 0, so only a mask with a single run can be empty.
    """
    unsure = [
        place
        for place, rle in enumerate(rles)
        if not own_masks or len(rle["counts"]) <= LONGEST_RUN
    ]
    have = np.ones(len(rles), bool)
    have[unsure] = np.array(hotcoco.mask.area([rles[place] for place in unsure]), np.int64) > 0
    return have


def box_rows(detections: Detections) -> np.ndarray:
    """Return image id, box, score and category id. # shape: (N, 7)"""
    image_ids, category_ids, scores, boxes = detections[:4]
    return np.column_stack([image_ids, boxes, scores, category_ids])


def mask_entries(detections: Detections) -> list[dict[str, Any]]:
    """Return entries without boxes, so that the mask's area decides small, medium and large."""
    image_ids, category_ids, scores = (column.tolist() for column in detections[:3])
    rows = zip(image_ids, category_ids, scores, detections.rles or [], strict=True)
    with without_garbage_collection():  # whose searches go through all of the ground truth
        return [
            {"image_id": image_id, "category_id": category_id, "score": score, "segmentation": rle}
            for image_id, category_id, score, rle in rows
        ]


def _best_of_each_image(detections: Detections, limit: int) -> Detections:
    """Return the best ``limit`` detections of each image, the first of equals."""
    _, counts = np.unique(detections.image_ids, return_counts=True)
    if counts.max(initial=0) <= limit:
        return detections
    by_score = np.argsort(-detections.scores, kind="stable")
    by_image = by_score[np.argsort(detections.image_ids[by_score], kind="stable")]
    ids = detections.image_ids[by_image]
    rank = np.arange(len(ids)) - np.searchsorted(ids, ids)
    return detections.take(by_image[rank < limit])


AREAS = {"s": 1, "m": 2, "l": 3}
_FREQUENCIES = ("r", "c", "f")


class Tables(NamedTuple):
    """Precision and recall of one evaluation; -1 where there is no object."""

    precision: np.ndarray  # shape: (IoU thresholds, recall levels, categories, areas, limits)
    recall: np.ndarray  # shape: (IoU thresholds, categories, areas, limits)
    limits: Sequence[int]  # detections of an image that count

    def ap(
        self, limit: int, area: int = 0, categories: Sequence[int] | slice = slice(None)
    ) -> float:
        """Return AP over all IoU thresholds."""
        return percent(self.precision[:, :, categories, area, self.limits.index(limit)])

    def ap_at(self, limit: int, iou: float) -> float:
        """Return AP at one of the thresholds .50, .55, ... .95."""
        return percent(self.precision[round((iou - 0.5) / 0.05), :, :, 0, self.limits.index(limit)])

    def ar(self, limit: int, area: int = 0) -> float:
        """Return average recall over all IoU thresholds."""
        return percent(self.recall[:, :, area, self.limits.index(limit)])


def percent(values: np.ndarray) -> float:
    """Return the mean of all values except -1, in percent; NaN if there is none."""
    values = values[values > -1]
    return 100 * float(values.mean()) if values.size else math.nan


def precision_numbers(tables: Tables, limit: int) -> dict[str, float]:
    """Return AP, AP50, AP75 and AP by area."""
    numbers = {
        "AP": tables.ap(limit),
        "AP50": tables.ap_at(limit, 0.5),
        "AP75": tables.ap_at(limit, 0.75),
    }
    return numbers | {f"AP{name}": tables.ap(limit, area) for name, area in AREAS.items()}


def coco_numbers(tables: Tables, limit: int) -> dict[str, float]:
    """Return COCO's twelve numbers."""
    recalls = {f"AR{number}": tables.ar(number) for number in sorted({1, 10, limit})}
    by_area = {f"AR{name}": tables.ar(limit, area) for name, area in AREAS.items()}
    return precision_numbers(tables, limit) | recalls | by_area


def lvis_numbers(tables: Tables, limit: int, frequencies: Sequence[str]) -> dict[str, float]:
    """Return LVIS's thirteen numbers.

    Args:
        tables: tables of an evaluation with that limit.
        limit: detections of an image that count.
        frequencies: "r", "c" or "f" for each category.
    """
    rarity = {}
    for letter in _FREQUENCIES:
        places = [place for place, frequency in enumerate(frequencies) if frequency == letter]
        rarity[f"AP{letter}"] = tables.ap(limit, categories=places)
    recalls = {f"AR@{limit}": tables.ar(limit)}
    recalls |= {f"AR{name}@{limit}": tables.ar(limit, area) for name, area in AREAS.items()}
    return precision_numbers(tables, limit) | rarity | recalls


def category_numbers(tables: Tables, limit: int, names: Sequence[str]) -> dict[str, float]:
    """Return ``AP-NAME`` of each category."""
    return {f"AP-{name}": tables.ap(limit, categories=[place]) for place, name in enumerate(names)}
