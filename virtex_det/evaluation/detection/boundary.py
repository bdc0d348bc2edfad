"""Boundary AP of masks (Cheng et al. 2021, sec. 5): AP by the smaller of mask IoU and the IoU of the boundaries."""

from __future__ import annotations

import importlib
import logging
from types import ModuleType

import orjson

from virtex_det.errors import UserError
from virtex_det.evaluation.detection.detections import Detections, from_entries
from virtex_det.evaluation.detection.ground_truth import GroundTruth
from virtex_det.evaluation.detection.library_form import counted_detections, mask_entries, objects_of
from virtex_det.evaluation.detection.summary import Tables, precision_numbers


class BoundaryPrecision:
    """Boundary AP on ``faster-coco-eval``, which wants all masks at once: they are kept until then."""

    def __init__(self, truth: GroundTruth, limit: int) -> None:
        """
        Args:
            truth: with masks.
            limit: detections of an image that count.

        Raises:
            UserError: ``faster-coco-eval`` is not installed.
        """
        self.library = _library()
        self.truth = truth
        self.limit = limit
        self._parts: list[Detections] = []

    def add(self, detections: Detections) -> None:
        """Take in detections that were looked at."""
        self._parts.append(counted_detections(detections, self.truth, "segm", self.limit))

    def to_bytes(self) -> bytes:
        """Return what another process can ``add_bytes``."""
        return orjson.dumps([entry for part in self._parts for entry in part.entries()])

    def add_bytes(self, state: bytes) -> None:
        """Take in what another process saw."""
        entries = orjson.loads(state)
        if entries:
            self._parts.append(from_entries(entries))

    def numbers(self) -> dict[str, float]:
        """Return ``boundary-AP`` and so on, in percent."""
        truth = self.library.COCO(
            {
                "images": list(self.truth.images.values()),
                "annotations": objects_of(self.truth, self.truth.images, "segm"),
                "categories": self.truth.categories,
            }
        )
        found = truth.loadRes([entry for part in self._parts for entry in mask_entries(part)])
        is_lvis = self.truth.style == "lvis"
        evaluation = self.library.COCOeval_faster(truth, found, "boundary", lvis_style=is_lvis)
        evaluation.params.maxDets = [self.limit]
        evaluation.evaluate()
        evaluation.accumulate()
        tables = Tables(evaluation.eval["precision"], evaluation.eval["recall"], [self.limit])
        return {f"boundary-{name}": value for name, value in precision_numbers(tables, self.limit).items()}


def _library() -> ModuleType:
    try:
        library = importlib.import_module("faster_coco_eval")
    except ModuleNotFoundError as error:
        raise UserError(
            "Boundary AP needs the package faster-coco-eval, which is not here: pip install 'virtex_det[boundary]', or "
            "leave TEST.BOUNDARY_AP False."
        ) from error
    logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)
    return library
