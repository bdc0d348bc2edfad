"""Checks that the evaluation of DATASETS.TEST gives the metrics of TEST.EXPECTED_RESULTS."""

import difflib
from collections.abc import Collection, Mapping

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from virtex_det.errors import UserError
from virtex_det.evaluation.caption_metrics import METRICS
from virtex_det.evaluation.detection.average_precision import AveragePrecision
from virtex_det.evaluation.detection.ground_truth import GroundTruth
from virtex_det.evaluation.detection.voc import VOCAveragePrecision, VOCGroundTruth

# Metrics of Detectron2's evaluators (TEST.METRICS_LIBRARY reference) by evaluator_type; those of
# keypoints lack APs.
_REFERENCE = {
    "coco": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "lvis": ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"),
    "pascal_voc": ("AP", "AP50", "AP75"),
}
_OTHERS = {
    "classification": ("top1", "top5"),
    "captions": tuple(name for names in METRICS for name in names),
    "pointing": ("accuracy", "chance", "ceiling", "words"),
}


def check_expected_names(
    cfg: CfgNode, name: str, truth: GroundTruth | VOCGroundTruth | None
) -> None:
    """Refuse an expected metric that a data set's evaluation lacks: it would fail after training.

    Args:
        cfg: of the model; the tasks of TEST.EXPECTED_RESULTS are already checked.
        name: of the data set.
        truth: its ground truth; None for captions and labels.

    Raises:
        UserError: names the metric, and the metrics that there are.
    """
    expected: dict[str, list[str]] = {}
    for task, metric, *_ in cfg.TEST.EXPECTED_RESULTS:
        expected.setdefault(task, []).append(metric)
    for task, given in _given(cfg, name, truth, expected).items():
        for metric in expected[task]:
            if metric not in given:
                _refuse(task, metric, given)


def _given(
    cfg: CfgNode, name: str, truth: GroundTruth | VOCGroundTruth | None, tasks: Collection[str]
) -> Mapping[str, Collection[str]]:
    """Return the names of the metrics by task, if they are known before an evaluation."""
    if truth is None:
        return {task: _OTHERS[task] for task in tasks if task in _OTHERS}
    if cfg.TEST.METRICS_LIBRARY == "reference":
        metadata = MetadataCatalog.get(name)
        names = list(_REFERENCE[metadata.evaluator_type])
        if metadata.evaluator_type == "coco":
            names += [f"AP-{title}" for title in metadata.thing_classes]
        return dict.fromkeys(tasks, names)
    if isinstance(truth, VOCGroundTruth):
        return {task: VOCAveragePrecision(truth).names() for task in tasks if task == "bbox"}
    limits, boundary = tuple(cfg.TEST.EXTRA_MAX_DETECTIONS), cfg.TEST.BOUNDARY_AP
    return {
        task: AveragePrecision(truth, task, extra_max_detections=limits, boundary=boundary).names()
        for task in tasks
        if task in ("bbox", "segm")
    }


def _refuse(task: str, metric: object, given: Collection[str]) -> None:
    near = difflib.get_close_matches(str(metric), given, n=3)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    totals = [name for name in given if not name.startswith("AP-")]
    raise UserError(
        f"TEST.EXPECTED_RESULTS names the metric {metric!r:.80} of {task}, which the evaluation "
        f"does not give.\n{hint}It gives {', '.join(totals)}"
        + (", and AP-NAME of each class." if len(totals) < len(given) else ".")
    )
