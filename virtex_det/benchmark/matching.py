"""Which detections in an image are right or false alarms, and what was missed, by COCO's rule."""

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_tools

MIN_OVERLAP = 0.5  # intersection over union, of masks if both have one


class Verdict(enum.Enum):
    """The status of an object in a picture."""

    LABELLED = "labelled"
    FOUND = "found"
    FALSE_ALARM = "false alarm"
    MISSED = "missed"
    UNJUDGED = "not judged"


def judge(
    detections: Sequence[dict],
    labelled: Sequence[dict],
    image: Mapping[str, Any],
    size: tuple[int, int],
) -> list[tuple[dict, Verdict]]:
    """Match detections with annotations of their class, by falling score, each annotation once.

    Detections in a crowd region are not judged, nor are those of a class with which an LVIS image
    is not exhaustively labelled.

    Args:
        detections: COCO results of one image.
        labelled: its COCO or LVIS annotations.
        image: its entry in the annotation file.
        size: its height and width in pixels.

    Returns:
        The detections, then the annotations that were missed.
    """
    judged = []
    missed = [annotation for annotation in labelled if not annotation.get("iscrowd")]
    crowds = [annotation for annotation in labelled if annotation.get("iscrowd")]
    for detection in sorted(detections, key=lambda found: -found["score"]):
        overlaps = [_overlap(detection, annotation, size) for annotation in missed]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best >= 0 and overlaps[best] >= MIN_OVERLAP:
            del missed[best]
            judged.append((detection, Verdict.FOUND))
            continue
        is_in_crowd = any(_overlap(detection, crowd, size) >= MIN_OVERLAP for crowd in crowds)
        if is_in_crowd or not _counts(detection, labelled, image):
            judged.append((detection, Verdict.UNJUDGED))
        else:
            judged.append((detection, Verdict.FALSE_ALARM))
    return judged + [(annotation, Verdict.MISSED) for annotation in missed]


def encode_mask(segmentation: Any, height: int, width: int) -> dict:
    """Return a mask in any of COCO's three forms as compressed run lengths."""
    if isinstance(segmentation, list):
        return mask_tools.merge(mask_tools.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return mask_tools.frPyObjects(segmentation, height, width)
    return segmentation


def _overlap(detection: dict, annotation: dict, size: tuple[int, int]) -> float:
    """Return the intersection over union, or over the detection's area for a crowd.

    It is 0 for another class.
    """
    if detection["category_id"] != annotation["category_id"]:
        return 0.0
    is_crowd = [int(bool(annotation.get("iscrowd")))]
    if detection.get("segmentation") and annotation.get("segmentation"):
        masks = [[encode_mask(each["segmentation"], *size)] for each in (detection, annotation)]
        return float(mask_tools.iou(*masks, is_crowd)[0, 0])
    boxes = [np.array([each["bbox"]], float) for each in (detection, annotation)]
    return float(mask_tools.iou(*boxes, is_crowd)[0, 0])


def _counts(detection: dict, labelled: Sequence[dict], image: Mapping[str, Any]) -> bool:
    """Return whether all objects of a detection's class are labelled in an image.

    In COCO they are, for every class.
    """
    category = detection["category_id"]
    if category in image.get("not_exhaustive_category_ids", ()):
        return False
    is_present = any(annotation["category_id"] == category for annotation in labelled)
    return is_present or category in image.get("neg_category_ids", (category,))
