"""The images of an evaluation on which a detector errs most and least, with misses marked."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from virtex_det.benchmark.matching import judge
from virtex_det.benchmark.pictures import DrawnImage, draw_detections, read_pixels
from virtex_det.evaluation.detection.detections import Detections
from virtex_det.evaluation.detection.diagnosis import Diagnosis, ImageCount
from virtex_det.evaluation.detection.ground_truth import GroundTruth


class Sheet(NamedTuple):
    """An image with what was found in it."""

    file_name: str
    picture: DrawnImage


def worst_images(diagnosis: Diagnosis) -> list[int]:
    """Return the images with an error, those with the most misses and false alarms first."""
    counts = diagnosis.images
    wrong = [image_id for image_id in sorted(counts) if _errors(counts[image_id])]
    return sorted(wrong, key=lambda image_id: -_errors(counts[image_id]))


def best_images(diagnosis: Diagnosis) -> list[int]:
    """Return the images with objects found, the fewest errors first, then the most objects."""
    counts = diagnosis.images
    right = [image_id for image_id in sorted(counts) if counts[image_id].found]
    return sorted(right, key=lambda image_id: (_errors(counts[image_id]), -counts[image_id].found))


def draw_sheets(
    image_ids: Sequence[int],
    number: int,
    files: Mapping[int, Path],
    truth: GroundTruth,
    detections: Detections,
    *,
    threshold: float,
    max_value: float,
) -> list[Sheet]:
    """Draw the first images whose file can be read, with found and missed objects, false alarms.

    Args:
        image_ids: of images, in order.
        number: of sheets.
        files: of the images.
        truth: their objects.
        detections: in any image.
        threshold: lowest score of a detection that is shown.
        max_value: as INPUT.MAX_VALUE.
    """
    sheets: list[Sheet] = []
    for image_id in image_ids:
        if len(sheets) == number:
            break
        file = files.get(image_id)
        pixels = read_pixels(file, max_value) if file is not None and file.is_file() else None
        if file is None or pixels is None:
            continue
        shown = (detections.image_ids == image_id) & (detections.scores >= threshold)
        found = [*detections.take(shown).entries()]
        labelled = truth.annotations_of(image_id)
        judged = judge(found, labelled, truth.images[image_id], pixels.shape[:2])
        drawn = draw_detections(pixels, judged, truth.category_names, threshold)
        sheets.append(Sheet(file.name, drawn))
    return sheets


def objects_by_size(truth: GroundTruth) -> dict[str, int]:
    """Return the number of objects by COCO's bounds of area, 32² and 96² pixels."""
    areas = np.array([entry["area"] for entry in _objects(truth)], np.float64)
    places = np.searchsorted([32.0**2, 96.0**2], areas, side="right")
    return dict(zip("sml", np.bincount(places, minlength=3).tolist(), strict=True))


def objects_by_class(truth: GroundTruth) -> dict[str, int]:
    """Return the number of objects of each class, crowds left out."""
    counts: dict[int, int] = defaultdict(int)
    for entry in _objects(truth):
        counts[entry["category_id"]] += 1
    return {name: counts[number] for number, name in truth.category_names.items()}


def _objects(truth: GroundTruth) -> list[dict]:
    return [
        entry
        for image_id in truth.images
        for entry in truth.annotations_of(image_id)
        if not entry.get("iscrowd")
    ]


def _errors(count: ImageCount) -> int:
    return count.false_alarms + count.missed
