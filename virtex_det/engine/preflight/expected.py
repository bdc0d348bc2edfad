"""Whether TEST.EXPECTED_RESULTS names numbers that the evaluation of DATASETS.TEST gives."""

import difflib
from collections.abc import Collection, Mapping

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from virtex_det.errors import UserError
from virtex_det.evaluation.caption_metrics import METRICS
from virtex_det.evaluation.detection.average_precision import AveragePrecision
from virtex_det.evaluation.detection.ground_truth import GroundTruth
from virtex_det.evaluation.detection.voc import VOCAveragePrecision, VOCGroundTruth

# Of Detectron2's own evaluators (TEST.METRICS_LIBRARY reference), by evaluator_type; keypoints have no APs.
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
    """Refuse a metric that the evaluation of a data set does not give, which would fail after training.

    Args:
        cfg: of the model; the tasks of TEST.EXPECTED_RESULTS are known to be its own.
        name: of the data set.
        truth: its ground truth; None of captions and labels.

    Raises:
        UserError: names the metric, and those that are there.
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
    """Return the names of each task's numbers, for tasks whose names are known before an evaluation."""
    if truth is None:
        return {task: _OTHERS[task] for task in tasks if task in _OTHERS}
    if cfg.TEST.METRICS_LIBRARY == "reference":
        metadata = MetadataCatalog.get(name)
        of_classes = (
            [f"AP-{title}" for title in metadata.thing_classes]
            if metadata.evaluator_type == "coco"
            else []
        )
        return dict.fromkeys(tasks, [*_REFERENCE[metadata.evaluator_type], *of_classes])
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
        f"TEST.EXPECTED_RESULTS names the metric {metric!r:.80} of {task}, which the evaluation does not give.\n"
        f"{hint}It gives {', '.join(totals)}"
        + (", and AP-NAME of each class." if len(totals) < len(given) else ".")
    )
