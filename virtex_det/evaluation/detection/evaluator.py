"""Box and mask AP of a detector on COCO, LVIS and VOC in three steps.

In every process, ``process`` matches each image with its ground truth and writes its detections to
disk. ``evaluate`` merges the results of all processes, and ``derive`` computes the numbers. Neither
boxes nor masks stay in memory.
"""

import functools
import itertools
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table
from tabulate import tabulate

from virtex_det.errors import UserError
from virtex_det.escaping import visible
from virtex_det.evaluation.detection.average_precision import AveragePrecision
from virtex_det.evaluation.detection.box_masks import encode_instances, instances_of
from virtex_det.evaluation.detection.detections import Detections
from virtex_det.evaluation.detection.ground_truth import class_ids, read_truth
from virtex_det.evaluation.detection.rank_files import (
    RankFiles,
    RankOutput,
    merge_entries,
    read_states,
)
from virtex_det.evaluation.detection.voc import VOCAveragePrecision, VOCGroundTruth

logger = logging.getLogger(__name__)

# Detectron2's name for COCO's results format; it serves for every dataset here.
RESULTS_FILE = "coco_instances_results.json"


class DetectionEvaluator(DatasetEvaluator):
    """COCO's, LVIS's or VOC's metrics of any detector, for its boxes and, if it has them, masks.

    The main process merges the states and files of all processes; the numbers are exactly those of
    one process.
    """

    def __init__(
        self,
        dataset_name: str,
        output_folder: str | Path,
        *,
        extra_max_detections: Sequence[int] = (),
        boundary_ap: bool = False,
    ) -> None:
        """
        Args:
            dataset_name: registered, with ``evaluator_type`` "coco", "lvis" or "pascal_voc".
            output_folder: folder for ``coco_instances_results.json``, shared by all processes.
            extra_max_detections: report AP with these numbers of detections per image, too.
            boundary_ap: report boundary AP of masks, too.

        Raises:
            UserError: an annotation is invalid.
        """
        self.dataset_name = dataset_name
        self.output_folder = Path(output_folder)
        self.metadata = MetadataCatalog.get(dataset_name)
        self.truth = read_truth(dataset_name, self.output_folder)
        self.extra_max_detections = tuple(extra_max_detections)
        self.boundary_ap = boundary_ap

    def reset(self) -> None:
        """Start a new evaluation; call it in every process."""
        self.metrics = {"bbox": self._new_metric("bbox")} if self.truth.has_annotations else {}
        self.counts = {"images": 0, "detections": 0, "broken masks": 0}
        self.rank_files = RankFiles(self.output_folder)

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Match the output of a model, or of :class:`UnpastedMasks`, for a batch."""
        for example, output in zip(inputs, outputs, strict=True):
            try:
                found = instances_of(output, example)
            except UserError as error:
                advice = (
                    "Proposals and keypoints are evaluated with TEST.METRICS_LIBRARY reference."
                )
                raise UserError(f"{error}\n{advice}") from error
            self._add(example["image_id"], found)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Merge the results of all processes.

        Returns:
            On the main process the numbers in percent under Detectron2's names, by task "bbox" and
            "segm"; NaN where there is no object. An empty dict on other processes.

        Raises:
            UserError: the processes do not share the output folder.
        """
        states = {task: metric.state() for task, metric in self.metrics.items()}
        self.metrics = {}  # the merge reads the states of all processes, including this one
        parts = self.rank_files.close(states, self.counts)
        if not comm.is_main_process():
            return {}
        self._log_counts(parts)
        merge_entries(parts, self.output_folder / RESULTS_FILE)
        tasks = sorted({task for part in parts for task in part.states})
        results = {task: self.derive(task, read_states(parts, task)) for task in tasks}
        self.rank_files.remove()
        return results

    def derive(self, task: str, states: Iterable[bytes]) -> dict[str, float]:
        """Compute and log a task's numbers, by name and in percent, from all processes' states."""
        metric = self._new_metric(task)
        metric.merge_states(states)
        result = metric.result()
        _log(task, self.dataset_name, result)
        return result

    def _new_metric(self, task: str) -> AveragePrecision | VOCAveragePrecision:
        if isinstance(self.truth, VOCGroundTruth):
            return VOCAveragePrecision(self.truth)
        return AveragePrecision(
            self.truth,
            task,
            extra_max_detections=self.extra_max_detections,
            boundary=self.boundary_ap,
            own_masks=True,
        )

    def _add(self, image_id: Any, instances: Instances) -> None:
        key = self.truth.image_key(image_id)
        detections = self._detections(key, instances)
        if detections.rles is not None and "segm" not in self.metrics and self._masks_count():
            self.metrics["segm"] = self._new_metric("segm")
        for metric in self.metrics.values():
            metric.update([key], detections)
        self.rank_files.add(entry | {"image_id": image_id} for entry in detections.entries())
        self.counts["images"] += 1
        self.counts["detections"] += len(detections.scores)

    def _masks_count(self) -> bool:
        if self.truth.has_annotations and not self.truth.has_masks and not self.counts["images"]:
            logger.warning(
                "The model predicts masks but %s has none: only boxes are measured",
                self.dataset_name,
            )
        return self.truth.has_annotations and self.truth.has_masks

    def _detections(self, image_key: int, instances: Instances) -> Detections:
        if instances.has("box_masks"):
            self.counts["broken masks"] += int(
                (~instances.box_masks.isfinite()).flatten(1).any(dim=1).sum()
            )
        category_ids = self._category_ids_of(instances.pred_classes.numpy())
        return Detections.of_instances(
            instances, image_key, category_ids, encode_instances(instances)
        )

    def _category_ids_of(self, classes: np.ndarray) -> np.ndarray:
        if len(classes) and classes.max() >= len(self.category_ids):
            raise UserError(
                f"The model found class {classes.max()}, but {self.dataset_name} has "
                f"{len(self.category_ids)} classes, counted from 0.\n"
                "Set MODEL.ROI_HEADS.NUM_CLASSES to that number, and train on the same classes."
            )
        return self.category_ids[classes]

    @functools.cached_property
    def category_ids(self) -> np.ndarray:
        """The annotation file's id of each class; known once the dataset is loaded."""
        return class_ids(self.metadata)

    def _log_counts(self, parts: Sequence[RankOutput]) -> None:
        """Log the number of detections, and warn of what makes AP lower or missing."""
        total = {name: sum(part.counts[name] for part in parts) for name in self.counts}
        logger.info(
            "Measuring %d detections on %s; results go to %s",
            total["detections"],
            self.dataset_name,
            self.output_folder,
        )
        if not self.truth.has_annotations:
            self._warn("no annotations: there is a results file but no AP")
            return
        images = len(self.truth.images)
        if total["images"] < images:
            missing = images - total["images"]
            self._warn(
                f"{missing} of {images} images were not shown to the model: they count as images "
                "without detections"
            )
        if not total["detections"]:
            self._warn("the model found nothing at all: every AP is 0")
        if total["broken masks"]:
            self._warn(
                f"{total['broken masks']} masks have NaN or infinity, which count as background"
            )

    def _warn(self, text: str) -> None:
        logger.warning("%s: %s", self.dataset_name, text)


def _log(task: str, dataset_name: str, result: dict[str, float]) -> None:
    overall = {name: value for name, value in result.items() if not name.startswith("AP-")}
    logger.info(
        "Evaluation results for %s on %s:\n%s", task, dataset_name, create_small_table(overall)
    )
    cells = [
        cell
        for name, value in result.items()
        if name.startswith("AP-")
        for cell in (visible(name[3:], ""), value)
    ]
    columns = min(6, len(cells))
    rows = itertools.zip_longest(*[cells[start::columns] for start in range(columns)])
    headers = ["category", "AP"] * (columns // 2)
    names = list(range(0, columns, 2))  # names may look like numbers
    table = tabulate(
        rows, headers, tablefmt="pipe", floatfmt=".3f", numalign="left", disable_numparse=names
    )
    logger.info("Per-category %s AP:\n%s", task, table)
