"""What a run's page says of one data set: the numbers, where the detector errs, and images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import CfgNode

from virtex_det.benchmark.evaluated_run import EvaluatedRun
from virtex_det.benchmark.records import ResultRecord
from virtex_det.benchmark.tables import title_of
from virtex_det.data.datasets import load_dataset
from virtex_det.data.datasets.class_rules import as_rules
from virtex_det.data.following import give_classes
from virtex_det.engine.run_folder import CONFIG
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.detections import read_detections
from virtex_det.evaluation.detection.diagnosis import (
    KINDS,
    Confusion,
    Diagnosis,
    diagnose,
    in_coco_form,
)
from virtex_det.evaluation.detection.ground_truth import GroundTruth
from virtex_det.evaluation.detection.results_file import read_ground_truth
from virtex_det.plugins import run_import_option
from virtex_det.run_page.sheets import (
    Sheet,
    best_images,
    draw_sheets,
    objects_by_class,
    objects_by_size,
    worst_images,
)
from virtex_det_commands import as_called

MOST_IN_MATRIX = 30  # classes; with more, a page has only the pairs
_PAIRS = 15
_SIZES = {"s": "small, below 32² pixels", "m": "medium", "l": "large, from 96² pixels"}
_SAME_AP = 0.05  # percent

Metrics = Mapping[str, Mapping[str, float | None]]
Row = tuple[str, str, list[str]]  # name, number of objects, and AP of each task


class Errors(NamedTuple):
    """Where a detector errs.

    Attributes:
        tasks: titles of what the diagnoses are of: boxes, then masks where there are some.
        diagnoses: one per task.
        kinds: name, meaning, and per task the number of errors and the gain in AP50.
        shares: of the confusion matrix's rows; empty where it has too many classes to show.
        pairs: the most frequent confusions.
        counts: found and missed objects, and false alarms.
        worst: images with the most errors; best: with the fewest.
    """

    tasks: list[str]
    diagnoses: list[Diagnosis]
    kinds: list[tuple[str, str, list[tuple[int, float]]]]
    shares: list[list[float]]
    pairs: list[tuple[str, str, int]]
    counts: dict[str, int]
    worst: list[Sheet]
    best: list[Sheet]


class Evaluated(NamedTuple):
    """The last evaluation on a data set.

    Attributes:
        record: of it.
        tasks: titles of what was measured, such as "Box".
        totals: name of each number, with its value per task.
        sizes: rows by size of the objects.
        classes: rows by class, the most frequent first.
        errors: None if they cannot be shown.
    """

    record: ResultRecord
    tasks: list[str]
    totals: list[tuple[str, list[str]]]
    sizes: list[Row]
    classes: list[Row]
    errors: Errors | None


class Wanted(NamedTuple):
    """What a page shows of errors.

    Attributes:
        threshold: lowest score of a detection; None for that with the highest F1.
        images: the number of worst and of best images.
    """

    threshold: float | None
    images: int


def look_at_evaluation(
    cfg: CfgNode, folder: Path, record: ResultRecord, dataset: str, wanted: Wanted | None
) -> tuple[Evaluated, str]:
    """Return what the page shows of an evaluation, and why it lacks the errors; "" if it does not.

    Args:
        cfg: of the run.
        folder: of the run.
        record: of the evaluation.
        dataset: the whole name of the data set, of which a record may have a short one.
        wanted: None for a model that does not detect.
    """
    metrics, errors, reason = record.metrics, None, ""
    by_class: dict[str, int] = {}
    by_size: dict[str, int] = {}
    if wanted and "bbox" in metrics:
        try:
            give_classes([dataset], as_rules(cfg.DATASETS.CLASSES))
            truth = in_coco_form(read_ground_truth(dataset))
            by_class, by_size = objects_by_class(truth), objects_by_size(truth)
            errors = _errors(cfg, folder, record, dataset, truth, wanted)
        except UserError as error:
            reason = f"The errors and images of {record.dataset} are missing: {error}"
    tasks = [title_of(f"{task}/").strip() for task in metrics]
    names = dict.fromkeys(name for table in metrics.values() for name in table)
    classes = [name.removeprefix("AP-") for name in names if name.startswith("AP-")]
    totals = [(name, _values(metrics, name)) for name in names if not name.startswith("AP-")]
    sizes = [
        (title, str(by_size.get(size, "")), _values(metrics, f"AP{size}"))
        for size, title in _SIZES.items()
        if f"AP{size}" in names
    ]
    rows = [
        (name, str(by_class.get(name, "")), _values(metrics, f"AP-{name}"))
        for name in sorted(classes, key=lambda name: -by_class.get(name, 0))
    ]
    return Evaluated(record, tasks, totals, sizes, rows, errors), reason


def number(value: float | None) -> str:
    """Return a number in percent as the page shows it."""
    return "–" if value is None else f"{value:.1f}"


def evaluation_command(folder: Path) -> str:
    """Return the command that evaluates a run's last checkpoint."""
    config = f"{run_import_option(folder)} --config-file {folder / CONFIG}"
    return as_called(f"python tools/train_net.py{config} --eval-only --resume")


def _values(metrics: Metrics, name: str) -> list[str]:
    return [number(table.get(name)) for table in metrics.values()]


def _errors(
    cfg: CfgNode,
    folder: Path,
    record: ResultRecord,
    dataset: str,
    truth: GroundTruth,
    wanted: Wanted,
) -> Errors:
    path = EvaluatedRun(folder, record).detections_file()
    again = f"To make them again: {evaluation_command(folder)}"
    if not path.is_file():
        raise UserError(f"{path}, the run's predictions, is missing.\n{again}")
    detections = read_detections(path, truth.image_key)
    boxes = diagnose(truth, detections, threshold=wanted.threshold)
    diagnoses = [boxes]
    if "segm" in record.metrics:
        diagnoses += [diagnose(truth, detections, task="segm", threshold=boxes.threshold)]
    if not _is_of(record, boxes, truth):
        raise UserError(
            f"{path} has a box AP of {boxes.ap:.2f}, but the run's record says "
            f"{record.metrics['bbox']['AP']:.2f}: the file is of another evaluation, or the "
            f"annotations have changed.\n{again}"
        )
    files = {
        truth.image_key(entry["image_id"]): Path(entry["file_name"])
        for entry in load_dataset(dataset)
    }

    def draw(image_ids: Sequence[int]) -> list[Sheet]:
        return draw_sheets(
            image_ids,
            wanted.images,
            files,
            truth,
            detections,
            threshold=boxes.threshold,
            max_value=cfg.INPUT.MAX_VALUE,
        )

    drawn = diagnoses[-1]  # images are judged by masks where there are masks
    worst = worst_images(drawn)
    shown = {*worst[: wanted.images]}
    return Errors(
        ["Box", "Mask"][: len(diagnoses)],
        diagnoses,
        [
            (name, meaning, [_of_kind(each, name) for each in diagnoses])
            for name, meaning in KINDS.items()
        ],
        _shares(boxes.confusion),
        boxes.confusion.pairs()[:_PAIRS],
        _counts(boxes),
        draw(worst),
        draw([image_id for image_id in best_images(drawn) if image_id not in shown]),
    )


def _is_of(record: ResultRecord, diagnosis: Diagnosis, truth: GroundTruth) -> bool:
    """Return whether predictions have the AP of a record; VOC's and LVIS's rules are others."""
    recorded = record.metrics["bbox"].get("AP")
    is_cocos = truth.style == "coco" and "AR100" in record.metrics["bbox"]
    return not is_cocos or recorded is None or abs(recorded - diagnosis.ap) <= _SAME_AP


def _of_kind(diagnosis: Diagnosis, name: str) -> tuple[int, float]:
    return diagnosis.kinds[name].errors, diagnosis.kinds[name].gain


def _shares(confusion: Confusion) -> list[list[float]]:
    if len(confusion.names) > MOST_IN_MATRIX:
        return []
    return (confusion.matrix / confusion.matrix.sum(axis=1, keepdims=True).clip(1)).tolist()


def _counts(diagnosis: Diagnosis) -> dict[str, int]:
    rows: Any = np.array([*diagnosis.images.values()], int).reshape(-1, 3)
    found, false_alarms, missed = rows.sum(axis=0).tolist()
    return {"found": found, "false_alarms": false_alarms, "missed": missed}
