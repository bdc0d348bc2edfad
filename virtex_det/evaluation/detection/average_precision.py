"""AP and AR of COCO and LVIS by ``hotcoco``, matched image by image.

The numbers are those of ``pycocotools`` and ``lvis-api``. The library, whose version is pinned, is
used only here, in ``coco_format``, in ``diagnosis`` and for the boxes of masks. It lacks boundary
AP (Cheng et al. 2021, sec. 5: AP by the smaller of mask IoU and boundary IoU), which comes from
``faster-coco-eval``.
"""

from __future__ import annotations

import importlib
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import hotcoco
import numpy as np
import orjson

from virtex_det.errors import UserError
from virtex_det.evaluation.detection.coco_format import (
    Tables,
    box_rows,
    category_numbers,
    coco_numbers,
    counted_detections,
    images_of,
    lvis_numbers,
    mask_entries,
    objects_of,
    precision_numbers,
)
from virtex_det.evaluation.detection.detections import Detections, concatenate, from_entries
from virtex_det.evaluation.detection.ground_truth import GroundTruth
from virtex_det.evaluation.detection.validation import Findings, check_detections

TASKS = ("bbox", "segm")
# The number of best detections of an image that count: per category in COCO, in total in LVIS.
MAX_DETECTIONS = {"coco": 100, "lvis": 300}
# Images matched per call: few enough for memory, enough to make calls cheap.
_BATCH = 64
_MOST_DETECTIONS = 2**31 - 1  # per image; an array's index holds no more


class AveragePrecision:
    """Box or mask AP, matched image by image: memory holds scores and matches, but no masks.

    They take about 50 bytes per detection for COCO and 10 for LVIS.
    """

    def __init__(
        self,
        truth: GroundTruth,
        task: str,
        *,
        max_detections: int | None = None,
        extra_max_detections: Sequence[int] = (),
        boundary: bool = False,
        own_masks: bool = False,
    ) -> None:
        """
        Args:
            truth: its style, COCO's or LVIS's, decides the metric.
            task: "bbox" or "segm".
            max_detections: detections of an image that count; None for the benchmark's 100 or 300.
            extra_max_detections: report ``AP@N`` and ``AR@N`` for these numbers, too.
            boundary: report boundary AP of masks, too; keeps all masks in memory.
            own_masks: all masks come from ``box_masks``, so that their run lengths are known valid.

        Raises:
            UserError: an unknown task, a number below 1, no annotations, missing or invalid masks
                for the task "segm", or boundary AP without its library.
        """
        if task not in TASKS:
            raise UserError(f"there is no task {task!r}; expected one of: {', '.join(TASKS)}.")
        if not truth.has_annotations:
            raise UserError(
                f"{truth.source} has images but no annotations, so there is nothing to measure."
            )
        if task == "segm":
            truth.check_masks()
        self.truth = truth
        self.task = task
        self.limit = MAX_DETECTIONS[truth.style] if max_detections is None else max_detections
        self.extra = tuple(sorted(set(extra_max_detections)))
        if not all(1 <= limit <= _MOST_DETECTIONS for limit in (self.limit, *self.extra)):
            raise UserError(
                f"max_detections {self.limit} and {list(self.extra)}: each must be from 1 to "
                f"{_MOST_DETECTIONS}."
            )
        self._own_masks = own_masks
        self._wants_boundary = boundary and task == "segm"
        self._matchers = {cut: self._matcher(cut) for cut in self._cuts()}
        self._boundary = self._new_boundary()
        self._seen: set[int] = set()
        self._waiting: list[tuple[list[int], Detections]] = []
        self._findings = Findings()

    def update(self, image_ids: Sequence[int], detections: Detections) -> None:
        """Add images and their detections.

        Args:
            image_ids: evaluated images, including those without detections; each once per
                evaluation.
            detections: the detections of these images.

        Raises:
            UserError: invalid data, as ``validation`` says; raised by this call or a later one,
                since images are matched in batches.
        """
        self._waiting.append((list(image_ids), detections))
        if sum(len(ids) for ids, _ in self._waiting) >= _BATCH:
            self._flush()

    def state(self) -> bytes:
        """Return this process's part of the evaluation, for ``merge_states``."""
        self._flush()
        columns: dict[str, Any] = {
            str(cut): np.frombuffer(matcher.to_bytes(), np.uint8)
            for cut, matcher in self._matchers.items()
        }
        columns["seen"] = np.array(sorted(self._seen), np.int64)
        if self._boundary:
            columns["boundary"] = np.frombuffer(self._boundary.to_bytes(), np.uint8)
        columns["findings"] = np.frombuffer(self._findings.to_json().encode(), np.uint8)
        file = io.BytesIO()
        np.savez(file, **columns)
        return file.getvalue()

    def merge_states(self, states: Iterable[bytes]) -> None:
        """Replace this process's state by the union of the given states.

        The union includes this process only if its own state is given.

        Raises:
            UserError: several states contain the same image.
        """
        matchers: dict[int, list[Any]] = {cut: [] for cut in self._matchers}
        self._waiting, self._seen, self._findings = [], set(), Findings()
        self._boundary = self._new_boundary()
        for state in states:
            with np.load(io.BytesIO(state), allow_pickle=False) as columns:
                self._see(columns["seen"].tolist())
                self._findings.add_json(columns["findings"].tobytes().decode())
                if self._boundary:
                    self._boundary.add_bytes(columns["boundary"].tobytes())
                for cut in matchers:
                    matchers[cut].append(
                        hotcoco.StreamingEval.from_bytes(columns[str(cut)].tobytes())
                    )
        self._matchers = {
            cut: hotcoco.StreamingEval.merge([self._matcher(cut), *matchers[cut]])
            for cut in matchers
        }

    def result(self) -> dict[str, float]:
        """Return all numbers in percent; images that were not added count as without detections.

        Returns:
            AP AP50 AP75 APs APm APl (LVIS: APr APc APf), AR1 AR10 AR100 ARs ARm ARl (LVIS: AR@300
            ARs@300 ...), ``AP@N`` ``AR@N`` and ``boundary-AP`` ... where requested, and ``AP-NAME``
            of each category. NaN where there is no object.
        """
        self._flush()
        self._findings.tell(f"{self.task} detections for {self.truth.source}")
        boundary = self._boundary.numbers() if self._boundary else {}
        return self._numbers({cut: self._tables(cut) for cut in self._matchers}, boundary)

    def names(self) -> list[str]:
        """Return the names of the numbers of ``result``, without an evaluation."""
        categories, limits = len(self.truth.categories), sorted({1, 10, self.limit, *self.extra})
        nothing = Tables(
            np.zeros((10, 0, categories, 4, len(limits))),
            np.full((10, categories, 4, len(limits)), -1.0),
            limits,
        )
        boundary = precision_numbers(nothing, self.limit) if self._boundary else {}
        of_boundary = {f"boundary-{name}": value for name, value in boundary.items()}
        return list(self._numbers(dict.fromkeys(self._matchers, nothing), of_boundary))

    def _numbers(
        self, tables: Mapping[int, Tables], boundary: dict[str, float]
    ) -> dict[str, float]:
        names = list(self.truth.category_names.values())
        if self.truth.style == "coco":
            tables = dict.fromkeys((self.limit, *self.extra), tables[max(tables)])
            numbers = coco_numbers(tables[self.limit], self.limit)
        else:
            frequencies = [category["frequency"] for category in self.truth.categories]
            numbers = lvis_numbers(tables[self.limit], self.limit, frequencies)
        for cut in self.extra:
            numbers |= {f"AP@{cut}": tables[cut].ap(cut), f"AR@{cut}": tables[cut].ar(cut)}
        return numbers | boundary | category_numbers(tables[self.limit], self.limit, names)

    def _flush(self) -> None:
        """Check and match the waiting images."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        image_ids = [image_id for ids, _ in waiting for image_id in ids]
        detections = concatenate([part for _, part in waiting])
        self._see(image_ids)
        if self.task == "segm" and detections.rles is None:
            if len(detections.scores):
                raise UserError(
                    "The detections have no masks, so there is no mask AP; measure boxes only."
                )
            detections = Detections.empty(masks=True)
        if self.task == "bbox":
            detections = detections._replace(rles=None)
        known = np.array(sorted(image_ids), np.int64)
        sizes, categories = self.truth.sizes_of(known), self.truth.category_ids
        check_detections(
            detections, known, sizes, categories, self._findings, own_masks=self._own_masks
        )
        if self._boundary:
            self._boundary.add(detections)
        for cut, matcher in self._matchers.items():
            self._match(matcher, cut, image_ids, detections)

    def _see(self, image_ids: Sequence[int]) -> None:
        again = self._seen.intersection(image_ids)
        unknown = [image_id for image_id in image_ids if image_id not in self.truth.images]
        if unknown:
            raise UserError(
                f"image {unknown[0]} is not in {self.truth.source} ({len(unknown)} such images)."
            )
        if again or len(set(image_ids)) < len(image_ids):
            image_id = min(again, default=next((i for i in image_ids if image_ids.count(i) > 1), 0))
            raise UserError(
                f"image {image_id} was evaluated twice; its detections would count double."
            )
        self._seen.update(image_ids)

    def _match(
        self, matcher: Any, cut: int, image_ids: Sequence[int], detections: Detections
    ) -> None:
        counted = counted_detections(
            detections, self.truth, self.task, cut, own_masks=self._own_masks
        )
        candidates = box_rows(counted) if self.task == "bbox" else mask_entries(counted)
        images, objects = (
            images_of(self.truth, image_ids),
            objects_of(self.truth, image_ids, self.task),
        )
        matcher.update(images, objects, candidates)

    def _new_boundary(self) -> BoundaryPrecision | None:
        return BoundaryPrecision(self.truth, self.limit) if self._wants_boundary else None

    def _cuts(self) -> tuple[int, ...]:
        """Return the limits that need their own matching; in COCO the largest serves all."""
        limits = (self.limit, *self.extra)
        return (max(limits),) if self.truth.style == "coco" else tuple(sorted(set(limits)))

    def _matcher(self, cut: int) -> Any:
        params = hotcoco.Params(self.task)
        is_coco = self.truth.style == "coco"
        params.max_dets = sorted({1, 10, self.limit, *self.extra}) if is_coco else [cut]
        return hotcoco.StreamingEval(self.truth.categories, self.task, not is_coco, params)

    def _tables(self, cut: int) -> Tables:
        matcher = hotcoco.StreamingEval.merge([self._matchers[cut]])
        unseen = [image_id for image_id in self.truth.images if image_id not in self._seen]
        for start in range(0, len(unseen), _BATCH):
            self._match(matcher, cut, unseen[start : start + _BATCH], Detections.empty(masks=True))
        evaluation = matcher.finalize()
        evaluation.accumulate()
        found = evaluation.eval or {}
        return Tables(found["precision"], found["recall"], evaluation.params.max_dets)


class BoundaryPrecision:
    """Boundary AP by ``faster-coco-eval``, which takes all masks at once at the end."""

    def __init__(self, truth: GroundTruth, limit: int) -> None:
        """
        Args:
            truth: annotations with masks.
            limit: detections of an image that count.

        Raises:
            UserError: ``faster-coco-eval`` is not installed.
        """
        self.library = _library()
        self.truth = truth
        self.limit = limit
        self._parts: list[Detections] = []

    def add(self, detections: Detections) -> None:
        """Add checked detections."""
        self._parts.append(counted_detections(detections, self.truth, "segm", self.limit))

    def to_bytes(self) -> bytes:
        """Return this process's detections, for ``add_bytes``."""
        return orjson.dumps([entry for part in self._parts for entry in part.entries()])

    def add_bytes(self, state: bytes) -> None:
        """Add the detections of another process."""
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
        return {
            f"boundary-{name}": value
            for name, value in precision_numbers(tables, self.limit).items()
        }


def _library() -> ModuleType:
    try:
        library = importlib.import_module("faster_coco_eval")
    except ModuleNotFoundError as error:
        raise UserError(
            "Boundary AP needs the package faster-coco-eval, which is not installed: pip install "
            "'virtex_det[boundary]', or leave TEST.BOUNDARY_AP False."
        ) from error
    logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)
    return library
