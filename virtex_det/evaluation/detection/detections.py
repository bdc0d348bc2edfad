"""Detections as columns, and the COCO results files that they are read from and written to."""

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
    """What a detector found: arrays of one length, for a fraction of the memory of a dict per object."""

    image_ids: np.ndarray  # shape: (N,), int64
    category_ids: np.ndarray  # shape: (N,), int64, as in the annotation file
    scores: np.ndarray  # shape: (N,), float64
    boxes: np.ndarray  # shape: (N, 4), float64: x, y, width, height in pixels
    rles: list[dict[str, Any]] | None = None  # masks as COCO's compressed run lengths {"size": [h, w], "counts": ...}

    @classmethod
    def empty(cls, masks: bool = False) -> "Detections":
        """Return no detections."""
        ids = np.zeros(0, np.int64)
        return cls(ids, ids, np.zeros(0), np.zeros((0, 4)), [] if masks else None)

    @classmethod
    def of_instances(
        cls, instances: Instances, image_key: int, category_ids: np.ndarray, rles: list[dict[str, Any]] | None
    ) -> "Detections":
        """Return what Detectron2 found in an image.

        Args:
            instances: on the CPU, with pred_boxes and scores.
            image_key: of the image.
            category_ids: of each instance. # shape: (N,)
            rles: their masks, None for boxes alone.
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
        """Return the detections at an index, in its order.

        Args:
            index: places or a mask of booleans. # shape: (M,) or (N,)
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
        UserError: some have masks and others have none.
    """
    filled = [part for part in parts if len(part.scores)]
    if not filled:
        return Detections.empty(masks=any(part.rles is not None for part in parts))
    image_ids, category_ids, scores, boxes = (np.concatenate(column) for column in list(zip(*filled, strict=True))[:4])
    rles = [part.rles for part in filled if part.rles is not None]
    if rles and len(rles) < len(filled):
        raise UserError("Some detections have masks and others have none; expected all of them, or none.")
    return Detections(image_ids, category_ids, scores, boxes, [rle for part in rles for rle in part] if rles else None)


def read_detections(path: str | Path, image_key: Callable[[int | str], int] | None = None) -> Detections:
    """Read a COCO results file: a JSON list of entries with a box, a mask, or both.

    Entries without a box get that of their mask.

    Args:
        path: the file.
        image_key: a ground truth's, where the file names images by something else than a number, as VOC's do.

    Raises:
        UserError: no such file, no such list, or an entry that lacks something or has something else in its place.
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
            f"{path} holds no list of detections; expected COCO's results format:\n"
            '[{"image_id": 139, "category_id": 1, "bbox": [x, y, w, h], "score": 0.9}, ...]'
        )
    return entries


def from_entries(entries: list[dict[str, Any]], image_key: Callable[[int | str], int] | None = None) -> Detections:
    """Return entries of a results file as columns; there has to be one.

    Raises:
        UserError: names the entry that lacks something or has something else in its place.
    """
    if image_key is not None:
        entries = [_with_key(entry, image_key) for entry in entries]
    image_ids, category_ids = _column(entries, "image_id", int), _column(entries, "category_id", int)
    rles = _rles(entries) if any("segmentation" in entry for entry in entries) else None
    return Detections(image_ids, category_ids, _column(entries, "score", float), _boxes(entries, rles), rles)


def _with_key(entry: dict[str, Any], image_key: Callable[[int | str], int]) -> dict[str, Any]:
    image_id = entry.get("image_id")
    if not isinstance(image_id, str | int) or isinstance(image_id, bool):
        return entry
    key = image_key(image_id)
    return entry if key == image_id else entry | {"image_id": key}


def _column(entries: list[dict[str, Any]], name: str, kind: type) -> np.ndarray:
    """Return a number of each entry; slow only once it is known that something is wrong."""
    values: list[Any] = [entry.get(name) for entry in entries]
    kinds = (int,) if kind is int else (int, float)
    for place, value in enumerate(values):
        if type(value) not in kinds or (type(value) is int and abs(value) >= 2**63):
            found = f"{name} {value!r}" if name in entries[place] else f"no {name}"
            expected = "a whole number of at most 64 bits" if kind is int else "a number"
            raise UserError(f"entry {place} (image {entries[place].get('image_id')}) has {found}; expected {expected}.")
    return np.array(values, np.int64 if kind is int else np.float64)


def _boxes(entries: list[dict[str, Any]], rles: list[dict[str, Any]] | None) -> np.ndarray:
    boxes = [entry.get("bbox") for entry in entries]
    without = [place for place, box in enumerate(boxes) if box is None]
    for place, box in enumerate(boxes):
        if box is not None and not (
            isinstance(box, list) and len(box) == 4 and all(_is_number(value) for value in box)
        ):
            raise UserError(f"entry {place} has bbox {box!r:.80}; expected [x, y, width, height] in pixels.")
    if without and rles is None:
        raise UserError(f"entry {without[0]} has neither bbox nor segmentation ({len(without)} such entries).")
    if without and rles is not None:
        check_run_lengths([rles[place] for place in without], lambda place: f"entry {without[place]}")
        of_masks = mask_tools.to_bbox([rles[place] for place in without])
        for place, box in zip(without, of_masks.tolist(), strict=True):
            boxes[place] = box
    return np.array(boxes, np.float64).reshape(-1, 4)


def _is_number(value: Any) -> bool:
    """Return whether a value is a number that an array can hold; NaN and infinity have an error of their own."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _rles(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rles: list[Any] = [entry.get("segmentation") for entry in entries]
    for place, rle in enumerate(rles):
        if not is_run_lengths(rle, str):
            raise UserError(
                f"entry {place} (image {entries[place].get('image_id')}) has segmentation {rle!r:.80}; where some have "
                'masks, all need COCO\'s compressed run lengths {"size": [height, width], "counts": "..."}.'
            )
    return rles


def _text(counts: str | bytes) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts
