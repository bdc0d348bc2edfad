"""Objects and detections in the form in which COCO's libraries take them, less what LVIS's own code leaves out."""

from collections.abc import Iterable, Sequence
from typing import Any

import hotcoco
import numpy as np

from virtex_det.evaluation.detection.detections import Detections
from virtex_det.evaluation.detection.ground_truth import GroundTruth
from virtex_det.run_lengths import LONGEST_RUN
from virtex_det.utils import without_garbage_collection

_IMAGE_FIELDS = ("id", "height", "width", "neg_category_ids", "not_exhaustive_category_ids")


def images_of(truth: GroundTruth, image_ids: Iterable[int]) -> list[dict[str, Any]]:
    """Return some images with the fields that AP depends on; a library refuses odd values in others."""
    images = (truth.images[image_id] for image_id in image_ids)
    return [{name: image[name] for name in _IMAGE_FIELDS if name in image} for image in images]


def objects_of(truth: GroundTruth, image_ids: Iterable[int], task: str) -> list[dict[str, Any]]:
    """Return the objects of some images.

    Without ``ignore``, which COCO's code overwrites with ``iscrowd`` and LVIS does not have; with ids from 1 on, as 0
    would mean "not matched" in some libraries.
    """
    objects = []
    for entry in (entry for image_id in image_ids for entry in truth.annotations_of(image_id)):
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

    COCO's limit is one of each category, and is kept by the libraries. LVIS's is one of the image; after it lvis-api
    leaves out what has no area.
    """
    if truth.style == "coco":
        return detections
    best = _best_of_each_image(detections, limit)
    if task == "segm":
        return best.take(_have_pixels(best.rles or [], own_masks))
    return best.take(best.boxes[:, 2] * best.boxes[:, 3] > 0)


def _have_pixels(rles: Sequence[dict[str, Any]], own_masks: bool) -> np.ndarray:
    """Return which masks have a pixel; of our own, which have no runs of length 0, an empty one is a single run."""
    unsure = [place for place, rle in enumerate(rles) if not own_masks or len(rle["counts"]) <= LONGEST_RUN]
    have = np.ones(len(rles), bool)
    have[unsure] = np.array(hotcoco.mask.area([rles[place] for place in unsure]), np.int64) > 0
    return have


def box_rows(detections: Detections) -> np.ndarray:
    """Return image id, box, score and category id. # shape: (N, 7)"""
    image_ids, category_ids, scores, boxes = detections[:4]
    return np.column_stack([image_ids, boxes, scores, category_ids])


def mask_entries(detections: Detections) -> list[dict[str, Any]]:
    """Return entries without boxes: small, medium and large go by the mask, as Detectron2 has it."""
    image_ids, category_ids, scores = (column.tolist() for column in detections[:3])
    rows = zip(image_ids, category_ids, scores, detections.rles or [], strict=True)
    with without_garbage_collection():  # whose searches go through all of the ground truth
        return [
            {"image_id": image_id, "category_id": category_id, "score": score, "segmentation": rle}
            for image_id, category_id, score, rle in rows
        ]


def _best_of_each_image(detections: Detections, limit: int) -> Detections:
    """Return no more than ``limit`` detections of each image: the best, and of equals the first."""
    _, counts = np.unique(detections.image_ids, return_counts=True)
    if counts.max(initial=0) <= limit:
        return detections
    by_score = np.argsort(-detections.scores, kind="stable")
    by_image = by_score[np.argsort(detections.image_ids[by_score], kind="stable")]
    ids = detections.image_ids[by_image]
    rank = np.arange(len(ids)) - np.searchsorted(ids, ids)
    return detections.take(by_image[rank < limit])
