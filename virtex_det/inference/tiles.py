"""Large pictures in overlapping tiles, so that small objects are as large as the model needs them.

An object that a tile's edge cuts is left to a tile, or to the whole picture, that shows all of it.
The tiles and their joining are supervision's (its InferenceSlicer and its suppression of doubles,
which keeps the boxes that torchvision's keeps). SAHI makes polygons of masks, and brings an OpenCV
that overwrites the one here.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from virtex_det.errors import UserError

_COLUMNS = ("pred_boxes", "scores", "pred_classes")
_CUT = "at an edge of its tile"  # name of that data: left, top, right, bottom
_SMALLEST = 32  # pixels of a side, the stride of most backbones
_EDGE = 0.01  # of a tile's side, within which a box ends at its edge


class Tiling(NamedTuple):
    """Sides of square tiles and what neighbours share, in pixels of the picture."""

    side: int
    overlap: int

    def check(self) -> None:
        """Refuse tiles that do not get on, and tiles so small that a picture has thousands.

        Raises:
            UserError: the side is below 32, or the overlap is not from 0 to less than the side.
        """
        if self.side < _SMALLEST:
            raise UserError(
                f"The side of a tile is {self.side} pixels; expected at least {_SMALLEST}. The "
                "model looks at each tile of a picture."
            )
        if not 0 <= self.overlap < self.side:
            raise UserError(
                f"Tiles of {self.side} pixels with an overlap of {self.overlap} do not cover a "
                "picture.\nThe overlap is from 0 to less than the side; take the size of the "
                "largest object that only tiles show well."
            )


Detect = Callable[[list[np.ndarray]], list[Instances]]


def detect_in_tiles(
    pixels: np.ndarray, detect: Detect, tiling: Tiling, overlap: float, batch_size: int
) -> Instances:
    """Detect objects in a picture and in its tiles, without those that the edge of a tile cuts.

    Of doubles the one with the best score stays.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        detect: returns the instances in pictures, with their masks in boxes or none.
        tiling: the tiles.
        overlap: IoU of two boxes of a class above which they are one object.
        batch_size: tiles at once.

    Returns:
        Instances in pixels of the picture, the best first.

    Raises:
        UserError: the masks are of the picture's size, or supervision is not installed.
    """
    [whole] = detect([pixels])
    height, width = pixels.shape[:2]
    if max(height, width) <= tiling.side:
        return whole
    sv = import_supervision()

    reach = _EDGE * tiling.side

    def detections_of(tile: np.ndarray) -> Any:
        return to_detections(detect([tile])[0], sv, reach)

    def detections_of_each(tiles: list[np.ndarray]) -> Any:
        return [to_detections(found, sv, reach) for found in detect(tiles)]

    slicer = sv.InferenceSlicer(
        detections_of if batch_size == 1 else detections_of_each,
        slice_wh=tiling.side,
        overlap_wh=tiling.overlap,
        overlap_filter=sv.OverlapFilter.NONE,
        batch_size=batch_size,
    )
    in_tiles = slicer(pixels)
    if len(in_tiles):
        at_edge = _at_edge(in_tiles.xyxy, (height, width), reach)
        in_tiles = in_tiles[~(in_tiles.data[_CUT] & ~at_edge).any(axis=1)]
    parts = [part for part in (to_detections(whole, sv, reach), in_tiles) if len(part)]
    if not parts:
        return whole
    joined = sv.Detections.merge(parts).with_nms(threshold=overlap)
    return _to_instances(joined[np.argsort(-joined.confidence, kind="stable")], (height, width))


def to_detections(instances: Instances, sv: ModuleType, reach: float) -> Any:
    """Return instances as supervision's Detections; further fields are their data.

    Args:
        instances: in a tile.
        sv: supervision.
        reach: pixels from an edge of the tile within which a box ends there.
    """
    fields = dict(instances.get_fields())
    if "pred_masks" in fields:
        raise UserError(
            "This model's masks are of the picture's size, and those of tiles cannot be joined.\n"
            "Leave the tiles out."
        )
    boxes, scores, classes = (fields.pop(name) for name in _COLUMNS)
    data = {name: np.asarray(value) for name, value in fields.items()}
    data[_CUT] = _at_edge(boxes.tensor.numpy(), instances.image_size, reach)
    return sv.Detections(
        xyxy=boxes.tensor.numpy(), confidence=scores.numpy(), class_id=classes.numpy(), data=data
    )


def _at_edge(boxes: np.ndarray, size: tuple[int, int], reach: float) -> np.ndarray:
    """Return which sides of boxes end at the edges of a picture of a size. # shape: (N, 4)"""
    height, width = size
    return np.concatenate(
        [boxes[:, :2] <= reach, boxes[:, 2:] >= np.array([width, height]) - reach], axis=1
    )


def _to_instances(detections: Any, size: tuple[int, int]) -> Instances:
    instances = Instances(size)
    instances.pred_boxes = Boxes(torch.from_numpy(detections.xyxy).float())
    instances.scores = torch.from_numpy(detections.confidence)
    instances.pred_classes = torch.from_numpy(detections.class_id)
    for name, values in detections.data.items():
        if name == _CUT:
            continue
        instances.set(name, torch.from_numpy(values))
    return instances


def import_supervision() -> ModuleType:
    """Import supervision.

    Raises:
        UserError: it is not installed.
    """
    try:
        import supervision
    except ModuleNotFoundError as error:
        raise UserError(
            "Tiles and conversions for supervision need that package, which is not installed.\n"
            "pip install 'virtex_det[predict]', or pip install supervision"
        ) from error
    return supervision
