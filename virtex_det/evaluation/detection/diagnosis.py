"""How a detector errs: the kinds of error, the classes that it takes for others, and the images.

The kinds are those of TIDE (Bolya et al. 2020, sec. 2): each has the AP that a detector without
that error would gain. They, the confusion matrix and the counts of an image come from ``hotcoco``.
"""

import math
from typing import Any, NamedTuple

import hotcoco
import numpy as np

from virtex_det.errors import UserError
from virtex_det.evaluation.detection.coco_format import (
    box_rows,
    counted_detections,
    images_of,
    mask_entries,
    objects_of,
    percent,
)
from virtex_det.evaluation.detection.detections import Detections
from virtex_det.evaluation.detection.ground_truth import GroundTruth
from virtex_det.evaluation.detection.validation import Findings, check_detections
from virtex_det.evaluation.detection.voc import VOCGroundTruth

KINDS = {
    "Cls": "the place is right, the class is wrong",
    "Loc": "the class is right, the place is not: IoU from 0.1 to 0.5",
    "Both": "class and place are wrong: IoU from 0.1 to 0.5 with another class",
    "Dupe": "the object was found already by a detection with a higher score",
    "Bkg": "nothing is there: IoU below 0.1 with every object",
    "Miss": "not found, and no detection has at least its class or its place right",
}
MIN_OVERLAP = 0.5  # IoU of a detection that counts as found
_THRESHOLD = 0.5  # where nothing was found
_LIMITS = {"coco": [1, 10, 100], "lvis": [300]}  # detections of an image that count


class ErrorKind(NamedTuple):
    """One of TIDE's kinds of error.

    Attributes:
        errors: those of this kind, among detections of every score.
        gain: AP50 in percent that the detector would gain without them.
    """

    errors: int
    gain: float


class ImageCount(NamedTuple):
    """Objects of one image, at a score threshold."""

    found: int
    false_alarms: int
    missed: int


class Confusion(NamedTuple):
    """What objects of each class were taken for, at a score threshold.

    Attributes:
        names: of the classes.
        matrix: rows are labelled classes, columns found ones; the last row are false alarms, the
            last column missed objects. # shape: (K + 1, K + 1)
    """

    names: list[str]
    matrix: np.ndarray

    def pairs(self) -> list[tuple[str, str, int]]:
        """Return labelled class, found class and number, the most frequent confusion first."""
        between = self.matrix[:-1, :-1].astype(np.int64)
        np.fill_diagonal(between, 0)
        rows, columns = np.nonzero(between)
        found = [
            (self.names[row], self.names[column], int(between[row, column]))
            for row, column in zip(rows, columns, strict=True)
        ]
        return sorted(found, key=lambda pair: -pair[2])


class Diagnosis(NamedTuple):
    """How a detector errs on one data set.

    Attributes:
        ap: AP in percent by COCO's rule.
        ap50: the AP at an IoU of 0.5 that the kinds of error refer to.
        kinds: by the names in ``KINDS``.
        confusion: of classes.
        images: counts by image id.
        threshold: lowest score of a detection in ``confusion`` and ``images``.
    """

    ap: float
    ap50: float
    kinds: dict[str, ErrorKind]
    confusion: Confusion
    images: dict[int, ImageCount]
    threshold: float


def diagnose(
    truth: GroundTruth,
    detections: Detections,
    *,
    task: str = "bbox",
    threshold: float | None = None,
) -> Diagnosis:
    """Say how a detector errs.

    In LVIS, detections of a class count only in images that are labelled for it exhaustively.

    Args:
        truth: of COCO's or LVIS's style; for VOC see ``in_coco_form``.
        detections: in its images.
        task: "bbox" or "segm", whose IoU decides.
        threshold: lowest score of a detection in the confusion matrix and in the counts per image;
            None for that with the highest F1 over all objects.

    Raises:
        UserError: a detection is of an image or class that the ground truth does not have.
    """
    if task == "segm" and detections.rles is None:
        raise UserError("The detections have no masks: name the task bbox.")
    check_detections(detections, truth.image_ids, truth.sizes, truth.category_ids, Findings())
    limit = _LIMITS[truth.style][-1]
    counted = counted_detections(_judged(truth, detections), truth, task, limit)
    labelled = _labelled(truth, task)
    every = _matched(truth, labelled, counted, task)
    kinds = every.tide_errors(pos_thr=MIN_OVERLAP)
    if threshold is None:
        threshold = _best_threshold(every, counted.scores)
    confident = counted.take(counted.scores >= threshold)
    images = _matched(truth, labelled, confident, task).image_diagnostics(iou_thr=MIN_OVERLAP)
    # The library's matrix does not know crowds: detections in them would be false alarms.
    judged = confident.take(np.array(sorted(images["dt_status"]), np.int64) - 1)
    comparison = _comparison(truth, labelled, judged, task)
    matrix = comparison.confusion_matrix(iou_thr=MIN_OVERLAP)["matrix"]
    return Diagnosis(
        ap=percent(every.eval["precision"][:, :, :, 0, -1]),
        ap50=100 * kinds["ap_base"],
        kinds={
            name: ErrorKind(kinds["counts"][name], 100 * kinds["delta_ap"][name]) for name in KINDS
        },
        confusion=Confusion([*truth.category_names.values()], matrix.astype(np.int64)),
        images={
            image_id: ImageCount(found["tp"], found["fp"], found["fn"])
            for image_id, found in images["img_summary"].items()
        },
        threshold=threshold,
    )


def in_coco_form(truth: GroundTruth | VOCGroundTruth) -> GroundTruth:
    """Return ground truth in COCO's format; VOC's difficult objects, which do not count, as crowds.

    Ids of images and classes are those of detections for the given ground truth.
    """
    if isinstance(truth, GroundTruth):
        return truth
    images = [
        {"id": place, "height": int(height), "width": int(width)}
        for place, (height, width) in enumerate(truth.sizes)
    ]
    annotations: list[dict[str, Any]] = []
    for place, objects in enumerate(truth.objects):
        rows = zip(objects.classes, objects.boxes, objects.difficult, strict=True)
        for number, (left, top, right, bottom), is_difficult in rows:
            # VOC counts pixels from 1, the last one included.
            corner, size = (left - 1, top - 1), (right - left + 1, bottom - top + 1)
            box = [float(value) for value in (*corner, *size)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": place,
                    "category_id": int(number),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(is_difficult),
                }
            )
    names = [{"id": place, "name": name} for place, name in enumerate(truth.class_names)]
    content = {"images": images, "annotations": annotations, "categories": names}
    return GroundTruth(content, "coco", truth.source, dict(enumerate(truth.images)))


def _judged(truth: GroundTruth, detections: Detections) -> Detections:
    """Leave out detections of classes for which an LVIS image is not exhaustively labelled."""
    if truth.style == "coco":
        return detections
    judged = {
        image_id: (
            {entry["category_id"] for entry in truth.annotations_of(image_id)}
            | {*image["neg_category_ids"]}
        )
        - {*image["not_exhaustive_category_ids"]}
        for image_id, image in truth.images.items()
    }
    pairs = zip(detections.image_ids.tolist(), detections.category_ids.tolist(), strict=True)
    return detections.take(np.array([number in judged[image] for image, number in pairs], bool))


def _best_threshold(evaluation: Any, scores: np.ndarray) -> float:
    """Return the score, in whole percent, from which on F1 is highest: 2 found / (all + objects).

    Args:
        evaluation: of all detections.
        scores: of these detections, whose ids count from 1.
    """
    status = evaluation.image_diagnostics(iou_thr=MIN_OVERLAP)
    judged = np.array([*status["dt_status"]], np.int64)
    if not len(judged):
        return _THRESHOLD
    is_found = np.array([verdict == "tp" for verdict in status["dt_status"].values()])
    order = np.argsort(-scores[judged - 1], kind="stable")
    found = np.cumsum(is_found[order])
    f1 = 2 * found / (np.arange(1, len(order) + 1) + len(status["gt_status"]))
    return math.floor(100 * float(scores[judged - 1][order][int(f1.argmax())])) / 100


def _labelled(truth: GroundTruth, task: str) -> Any:
    return hotcoco.COCO(
        {
            "images": images_of(truth, truth.images),
            "annotations": objects_of(truth, truth.images, task),
            "categories": truth.categories,
        }
    )


def _comparison(truth: GroundTruth, labelled: Any, detections: Detections, task: str) -> Any:
    rows = box_rows(detections) if task == "bbox" else mask_entries(detections)
    found = labelled.load_res(rows)
    comparison = hotcoco.COCOeval(labelled, found, task, lvis_style=truth.style == "lvis")
    comparison.params.max_dets = _LIMITS[truth.style]
    return comparison


def _matched(truth: GroundTruth, labelled: Any, detections: Detections, task: str) -> Any:
    comparison = _comparison(truth, labelled, detections, task)
    comparison.evaluate()
    comparison.accumulate()
    return comparison
