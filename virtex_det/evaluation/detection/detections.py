"""Detections as columns, and COCO results files."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.structures import BoxMode, Instances
from hotcoco import mask as mask_tools

from virtex_det.errors import UserError
from virtex_det.run_lengths import check_run_lengths, is_run_lengths
from virtex_det.text_files import read_json


class Detections(NamedTuple):
    """Detections as arrays of one length, which take a fraction of the memory of one dict each."""

    image_ids: np.ndarray  # shape: (N,), int64
    category_ids: np.ndarray  # shape: (N,), int64, as in the annotation file
    scores: np.ndarray  # shape: (N,), float64
    boxes: np.ndarray  # shape: (N, 4), float64: x, y, width, height in pixels
    rles: list[dict[str, Any]] | None = (
        None  # masks as COCO's compressed run lengths {"size": [h, w], "counts": ...}
    )

    @classmethod
    def empty(cls, masks: bool = False) -> "Detections":
        """Return no detections."""
        ids = np.zeros(0, np.int64)
        return cls(ids, ids, np.zeros(0), np.zeros((0, 4)), [] if masks else None)

    @classmethod
    def of_instances(
        cls,
        instances: Instances,
        image_key: int,
        category_ids: np.ndarray,
        rles: list[dict[str, Any]] | None,
    ) -> "Detections":
        """Convert Detectron2's instances of one image.

        Args:
            instances: on the CPU, with pred_boxes and scores.
            image_key: the image's id, as in `image_ids`.
            category_ids: the category of each instance. # shape: (N,)
            rles: the mask of each instance; None for boxes only.
        """
        boxes = BoxMode.convert(instances.pred_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
        return cls(
            np.full(len(instances), image_key, dtype=np.int64),
            category_ids,
            instances.scores.double().numpy(),
            boxes.double().numpy(),
            rles,
        )

    def take(self, index: np.ndarray) -> "Detections":
        """Return the detections that an index selects, in its order.

        Args:
            index: integer indices (M,) or a boolean mask (N,).
        """
        places = np.flatnonzero(index) if index.dtype == bool else index
        rles = None if self.rles is None else [self.rles[place] for place in places]
        image_ids, category_ids, scores, boxes = (column[places] for column in self[:4])
        return Detections(image_ids, category_ids, scores, boxes, rles)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield the entries of a COCO results file."""
        columns = zip(*(column.tolist() for column in self[:4]), strict=True)
        for place, (image_id, category_id, score, box) in enumerate(columns):
            entry = {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
            if self.rles is not None:
                rle = self.rles[place]
                entry["segmentation"] = {"size": list(rle["size"]), "counts": _text(rle["counts"])}
            yield entry


def concatenate(parts: Sequence[Detections]) -> Detections:
    """Return the detections of all parts.

    Raises:
        UserError: only some have masks.
    """
    filled = [part for part in parts if len(part.scores)]
    if not filled:
        return Detections.empty(masks=any(part.rles is not None for part in parts))
    parts_with_masks = [part.rles for part in filled if part.rles is not None]
    if parts_with_masks and len(parts_with_masks) < len(filled):
        raise UserError(
            "Some detections have masks and others do not; expected masks for all or for none."
        )
    return Detections(
        np.concatenate([part.image_ids for part in filled]),
        np.concatenate([part.category_ids for part in filled]),
        np.concatenate([part.scores for part in filled]),
        np.concatenate([part.boxes for part in filled]),
        list(itertools.chain.from_iterable(parts_with_masks)) if parts_with_masks else None,
    )


def read_detections(
    path: str | Path, image_key: Callable[[int | str], int] | None = None
) -> Detections:
    """Read a COCO results file: a JSON list of entries with a box, a mask, or both.

    An entry without a box gets the box of its mask.

    Args:
        path: the file.
        image_key: a ground truth's ``image_key``, for files whose image ids are not numbers, as
            VOC's.

    Raises:
        UserError: the file is missing or has no list, or an entry has a missing or invalid field.
    """
    entries = _read_entries(Path(path))
    if not entries:
        return Detections.empty()
    try:
        return from_entries(entries, image_key)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _read_entries(path: Path) -> list[dict[str, Any]]:
    entries = read_json(path, "a COCO results file, such as coco_instances_results.json")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(
            f"{path} is not a list of detections; expected COCO's results format:\n"
            '[{"image_id": 139, "category_id": 1, "bbox": [x, y, w, h], "score": 0.9}, ...]'
        )
    return entries


def from_entries(
    entries: list[dict[str, Any]], image_key: Callable[[int | str], int] | None = None
) -> Detections:
    """Return the entries of a results file, one or more, as columns.

    Raises:
        UserError: an entry has a missing or invalid field.
    """
    if image_key is not None:
        entries = [_with_key(entry, image_key) for entry in entries]
    image_ids, category_ids = (
        _column(entries, "image_id", int),
        _column(entries, "category_id", int),
    )
    rles = _rles(entries) if any("segmentation" in entry for entry in entries) else None
    return Detections(
        image_ids, category_ids, _column(entries, "score", float), _boxes(entries, rles), rles
    )


def _with_key(entry: dict[str, Any], image_key: Callable[[int | str], int]) -> dict[str, Any]:
    image_id = entry.get("image_id")
    if not isinstance(image_id, str | int) or isinstance(image_id, bool):
        return entry
    key = image_key(image_id)
    return entry if key == image_id else entry | {"image_id": key}


def _column(entries: list[dict[str, Any]], name: str, kind: type) -> np.ndarray:
    """Return one numeric field of all entries as a column."""
    values: list[Any] = [entry.get(name) for entry in entries]
    kinds = (int,) if kind is int else (int, float)
    for place, value in enumerate(values):
        if type(value) not in kinds or (type(value) is int and abs(value) >= 2**63):
            found = f"{name} {value!r}" if name in entries[place] else f"no {name}"
            expected = "a whole number of at most 64 bits" if kind is int else "a number"
            raise UserError(
                f"entry {place} (image {entries[place].get('image_id')}) has {found}; expected "
                f"{expected}."
            )
    return np.array(values, np.int64 if kind is int else np.float64)


def _boxes(entries: list[dict[str, Any]], rles: list[dict[str, Any]] | None) -> np.ndarray:
    boxes = [entry.get("bbox") for entry in entries]
    without = [place for place, box in enumerate(boxes) if box is None]
    for place, box in enumerate(boxes):
        if box is not None and not (
            isinstance(box, list) and len(box) == 4 and all(_is_number(value) for value in box)
        ):
            raise UserError(
                f"entry {place} has bbox {box!r:.80}; expected [x, y, width, height] in pixels."
            )
    if without and rles is None:
        raise UserError(
            f"entry {without[0]} has neither bbox nor segmentation ({len(without)} such entries)."
        )
    if without and rles is not None:
        check_run_lengths(
            [rles[place] for place in without], lambda place: f"entry {without[place]}"
        )
        of_masks = mask_tools.to_bbox([rles[place] for place in without])
        for place, box in zip(without, of_masks.tolist(), strict=True):
            boxes[place] = box
    return np.array(boxes, np.float64).reshape(-1, 4)


def _is_number(value: Any) -> bool:
    """Return whether an array can hold a value as a number; NaN and infinity can be."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _rles(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rles: list[Any] = [entry.get("segmentation") for entry in entries]
    for place, rle in enumerate(rles):
        if not is_run_lengths(rle, str):
            raise UserError(
                f"entry {place} (image {entries[place].get('image_id')}) has segmentation "
                f"{rle!r:.80}; where some have "
                "masks, all need COCO's compressed run lengths "
                '{"size": [height, width], "counts": "..."}.'
            )
    return rles


def _text(counts: str | bytes) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts
