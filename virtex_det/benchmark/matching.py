"""Which detections in one image are right, which are false alarms, and what was missed: COCO's rule at one overlap."""

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_tools

MIN_OVERLAP = 0.5  # intersection over union, of masks where both have one


class Verdict(enum.Enum):
    """What becomes of an object in a picture."""

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
    """Match detections with annotations of their class, the surest first, each annotation once.

    A detection in a region that is labelled as a crowd counts neither way, nor does one of a class
    that an LVIS image is not, or not exhaustively, labelled with.

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
        elif _counts(detection, labelled, image) and not any(
            _overlap(detection, crowd, size) >= MIN_OVERLAP for crowd in crowds
        ):
            judged.append((detection, Verdict.FALSE_ALARM))
        else:
            judged.append((detection, Verdict.UNJUDGED))
    return judged + [(annotation, Verdict.MISSED) for annotation in missed]


def encode_mask(segmentation: Any, height: int, width: int) -> dict:
    """Return each of COCO's three forms of a mask as its compressed run lengths."""
    if isinstance(segmentation, list):
        return mask_tools.merge(mask_tools.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return mask_tools.frPyObjects(segmentation, height, width)
    return segmentation


def _overlap(detection: dict, annotation: dict, size: tuple[int, int]) -> float:
    """Return intersection over union, with a crowd over the detection's own area; 0 for another class."""
    if detection["category_id"] != annotation["category_id"]:
        return 0.0
    is_crowd = [int(bool(annotation.get("iscrowd")))]
    if detection.get("segmentation") and annotation.get("segmentation"):
        masks = [[encode_mask(each["segmentation"], *size)] for each in (detection, annotation)]
        return float(mask_tools.iou(*masks, is_crowd)[0, 0])
    boxes = [np.array([each["bbox"]], float) for each in (detection, annotation)]
    return float(mask_tools.iou(*boxes, is_crowd)[0, 0])


def _counts(detection: dict, labelled: Sequence[dict], image: Mapping[str, Any]) -> bool:
    """Say whether an image is labelled with all objects of a detection's class; COCO's are with every class."""
    category = detection["category_id"]
    if category in image.get("not_exhaustive_category_ids", ()):
        return False
    is_present = any(annotation["category_id"] == category for annotation in labelled)
    return is_present or category in image.get("neg_category_ids", (category,))
