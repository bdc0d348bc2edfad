"""Evaluation of a results file, without the model, and tables of its numbers."""

import logging
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog
from tabulate import tabulate
from tqdm import tqdm

from virtex_det.data.datasets import check_datasets
from virtex_det.data.datasets.objects import Boxes, check_kind
from virtex_det.errors import UserError
from virtex_det.escaping import visible
from virtex_det.evaluation.detection.average_precision import AveragePrecision
from virtex_det.evaluation.detection.detections import Detections, from_entries, read_detections
from virtex_det.evaluation.detection.ground_truth import GroundTruth, read_truth
from virtex_det.evaluation.detection.validation import check_known, name_detection
from virtex_det.evaluation.detection.voc import VOCAveragePrecision, VOCGroundTruth
from virtex_det.files import as_name

logger = logging.getLogger(__name__)

_BATCH = 64
_FEW_IMAGES = 0.5  # share of images; a detector with a threshold leaves some without detections
_MANY_REPEATED = 0.01  # share of detections; rounding may cause a few
_SECONDS_BEFORE_A_BAR = 2
Results = dict[str, dict[str, float]]


class Difference(NamedTuple):
    """One number of two runs."""

    name: str
    this: float
    other: float

    @property
    def change(self) -> float:
        """This minus other; NaN if one of them is."""
        return self.this - self.other


def differences(these: Mapping[str, Any], others: Mapping[str, Any]) -> list[Difference]:
    """Compare the numbers that two results of one task share.

    Args:
        these: numbers by name, as ``result()`` returns them.
        others: numbers of the run to compare with.

    Returns:
        Totals first, in their order; then categories, the largest improvement first and NaN last.
    """
    rows = [Difference(name, these[name], others[name]) for name in these if name in others]
    totals = [row for row in rows if not row.name.startswith("AP-")]
    categories = [row for row in rows if row.name.startswith("AP-")]
    return totals + sorted(
        categories, key=lambda row: (math.isnan(row.change), -row.change, row.name)
    )


def evaluate_detections(
    truth: GroundTruth | VOCGroundTruth,
    detections: Detections,
    *,
    extra_max_detections: Sequence[int] = (),
    boundary: bool = False,
) -> Results:
    """Return the numbers of boxes and, where both sides have them, of masks.

    Args:
        truth: the ground truth.
        detections: detections in any of its images, in any order.
        extra_max_detections: report AP with these numbers of detections per image, too.
        boundary: report boundary AP of masks, too.

    Returns:
        Numbers in percent by name, by task "bbox" and "segm".

    Raises:
        UserError: invalid data, as ``validation`` says.
    """
    keys = _image_keys(truth)
    check_known(
        detections.image_ids, keys, "image", lambda place: name_detection(detections, place)
    )
    _check_boxes(truth, detections)
    if not len(detections.scores):
        logger.warning(f"There are no detections for {truth.source}: AP is 0.")
    detections = detections.take(np.argsort(detections.image_ids, kind="stable"))
    metrics = _metrics(truth, detections, extra_max_detections, boundary)
    with tqdm(total=len(keys), unit=" images", delay=_SECONDS_BEFORE_A_BAR, leave=False) as bar:
        for start in range(0, len(keys), _BATCH):
            batch = keys[start : start + _BATCH]
            first, last = np.searchsorted(detections.image_ids, [batch[0], batch[-1] + 1])
            for metric in metrics.values():
                metric.update(batch.tolist(), detections.take(np.arange(first, last)))
            bar.update(len(batch))
    return {task: metric.result() for task, metric in metrics.items()}


def evaluate_file(
    truth: GroundTruth | VOCGroundTruth,
    path: str | Path,
    *,
    extra_max_detections: Sequence[int] = (),
    boundary: bool = False,
) -> Results:
    """Evaluate a results file as ``evaluate_detections`` does; errors name the file."""
    detections = read_detections(path, truth.image_key)
    found, images = len(np.unique(detections.image_ids)), len(truth.images)
    if 0 < found < _FEW_IMAGES * images:
        logger.warning(
            f"{path} has detections in {found} of the {images} images of {truth.source}, and all "
            "objects of the others count as missed. Was only a part predicted?"
        )
    try:
        return evaluate_detections(
            truth, detections, extra_max_detections=extra_max_detections, boundary=boundary
        )
    except UserError as error:
        raise UserError(f"{path}, measured against {truth.source}: {error}") from error


def evaluate(
    results: str | os.PathLike[str] | list[dict[str, Any]],
    annotations: str | os.PathLike[str],
    *,
    style: str = "",
    extra_max_detections: Sequence[int] = (),
    boundary: bool = False,
) -> Results:
    """Return AP and AR of detections without the model that found them, and AP of each category.

    Args:
        results: a file in COCO's results format, or its entries.
        annotations: an annotation file of COCO or LVIS, or the name of a data set.
        style: style of the annotation file, "coco" or "lvis"; by default its content decides.
        extra_max_detections: report AP with these numbers of detections per image, too.
        boundary: report boundary AP of masks, too.

    Returns:
        Numbers in percent by name, by task "bbox" and "segm"; NaN where there is no object.

    Raises:
        UserError: a file cannot be read, or a detection is of an unknown image or category.

    Example:
        >>> evaluate("results.json", "instances_val2017.json")["bbox"]["AP"]
    """
    truth = read_ground_truth(annotations, style)
    options: dict[str, Any] = {"extra_max_detections": extra_max_detections, "boundary": boundary}
    if not isinstance(results, list):
        return evaluate_file(truth, as_name(results, "The results file"), **options)
    for place, entry in enumerate(results):
        if not isinstance(entry, dict):
            raise UserError(
                f"entry {place} of the results is a {type(entry).__name__}; expected entries in "
                "COCO's results format, as the method to_coco of a detector's detections returns "
                "them."
            )
    found = from_entries(results, truth.image_key) if results else Detections.empty()
    return evaluate_detections(truth, found, **options)


def read_ground_truth(
    annotations: str | os.PathLike[str], style: str = ""
) -> GroundTruth | VOCGroundTruth:
    """Return the annotations of a file or of a data set.

    Args:
        annotations: the path of a file, or the name of a data set, which is registered if possible.
        style: as for ``evaluate``.

    Raises:
        UserError: there is no such file or data set, or its annotations are invalid.
    """
    name = as_name(annotations, "The annotation file or data set")
    if name not in DatasetCatalog.list() and (Path(name).is_file() or Path(name).suffix == ".json"):
        return GroundTruth.read(name, style)
    if name not in DatasetCatalog.list():
        check_datasets([name])
    with tempfile.TemporaryDirectory() as folder:
        return read_truth(name, folder)


def tables(these: Results, others: Results | None = None) -> str:
    """Return all numbers as text, totals before categories; changes beside another run's."""
    parts = []
    for task, numbers in these.items():
        rows = _rows(numbers, None if others is None else others.get(task))
        headers = [task, "AP"] if others is None else [task, "this", "other", "change"]
        for wanted, title in ((False, task), (True, f"{task}, by category")):
            part = []
            for name, *values in rows:
                if name.startswith("AP-") == wanted:
                    part.append([visible(name.removeprefix("AP-"), ""), *values])
            table = tabulate(
                part, [title, *headers[1:]], tablefmt="simple", floatfmt=".3f", disable_numparse=[0]
            )
            parts.append(table)
    return "\n\n".join(parts)


def _check_boxes(truth: GroundTruth | VOCGroundTruth, detections: Detections) -> None:
    """Refuse boxes that look like fractions or corners; warn of repeated detections."""
    places = np.searchsorted(_image_keys(truth), detections.image_ids)
    check_kind(
        Boxes(
            detections.boxes,
            truth.sizes[places],
            np.zeros(len(places), bool),
            lambda place: name_detection(detections, place),
            "results",
        )
    )
    rows = np.column_stack(
        [detections.image_ids, detections.category_ids, detections.scores, detections.boxes]
    )
    # Different rows have different sums; comparing whole rows takes seven times as long.
    with np.errstate(all="ignore"):
        repeated = len(rows) - len(np.unique(rows @ np.sqrt([2, 3, 5, 7, 11, 13, 17])))
    if repeated > _MANY_REPEATED * len(rows):
        logger.warning(
            "%d of %d detections are repeated, with the same image, category, score and box. Were "
            "two files merged, or was one written twice? All count",
            repeated,
            len(rows),
        )


def _rows(these: Mapping[str, float], others: Mapping[str, float] | None) -> list[tuple]:
    if others is None:
        return list(these.items())
    return [(row.name, row.this, row.other, row.change) for row in differences(these, others)]


def _image_keys(truth: GroundTruth | VOCGroundTruth) -> np.ndarray:
    if isinstance(truth, GroundTruth):
        return truth.image_ids
    return np.arange(len(truth.images))


def _metrics(
    truth: GroundTruth | VOCGroundTruth,
    detections: Detections,
    extra: Sequence[int],
    boundary: bool,
) -> dict[str, AveragePrecision | VOCAveragePrecision]:
    if isinstance(truth, VOCGroundTruth):
        if extra or boundary:
            logger.warning(
                "VOC has neither AP at a number of detections nor boundary AP: both are left out."
            )
        return {"bbox": VOCAveragePrecision(truth)}
    tasks = ["bbox"]
    if boundary and detections.rles is None:
        logger.warning("The detections have no masks, so there is no boundary AP.")
    if detections.rles is not None and not truth.has_masks:
        logger.warning(
            f"The detections have masks, but not every object of {truth.source} has one: only "
            "boxes are measured."
        )
    elif detections.rles is not None:
        tasks.append("segm")
    return {
        task: AveragePrecision(truth, task, extra_max_detections=extra, boundary=boundary)
        for task in tasks
    }
