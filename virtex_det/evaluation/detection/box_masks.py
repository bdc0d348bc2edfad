"""Box masks: a detector's masks before pasting, encoded as run lengths without pasting them."""

import contextlib
from typing import Any

import numpy as np
import torch
from detectron2.modeling import GeneralizedRCNN, detector_postprocess
from detectron2.structures import BitMasks, Instances, ROIMasks
from pycocotools import mask as mask_tools
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from virtex_det.errors import UserError

# A pixel belongs to a mask at this probability or above, as in Detectron2.
THRESHOLD = 0.5
# Masks encoded at once: enough to keep NumPy busy, few enough for the processor's cache.
_MASKS_AT_ONCE = 64


def encode_box_masks(
    probabilities: torch.Tensor, boxes: torch.Tensor, height: int, width: int
) -> list[dict[str, Any]]:
    """Encode the masks that a mask head predicts inside boxes.

    The result equals that of Detectron2's ``paste_masks_in_image`` and pycocotools' ``encode``, at
    a fraction of the cost, because no mask is drawn. Down a column of pixels, bilinear
    interpolation is linear between two rows of the map, so one division finds where it crosses the
    threshold, however large the object is in the image.

    Args:
        probabilities: (N, M, M) float, in 0..1; NaN and infinity count as 0.
        boxes: (N, 4) float: x0, y0, x1, y1 in image pixels; the mask of a box without area is
            empty.
        height: image height.
        width: image width.

    Returns:
        N compressed run-length encodings in COCO's results format: {"size": [height, width],
        "counts": str}.
    """
    maps = np.nan_to_num(probabilities.float().cpu().numpy(), posinf=0, neginf=0)
    corners = boxes.float().cpu().numpy()
    counts: list[str] = []
    for start in range(0, len(maps), _MASKS_AT_ONCE):
        part = slice(start, start + _MASKS_AT_ONCE)
        changes = _find_changes(maps[part], corners[part], height, width)
        counts += _compress(*_count_runs(*changes, len(maps[part]), height * width))
    return [{"size": [height, width], "counts": text} for text in counts]


def encode_instances(instances: Instances) -> list[dict[str, Any]] | None:
    """Encode the masks of instances on the CPU: "box_masks", or masks of the image's size.

    Returns:
        A compressed run-length encoding for each instance; None if they have no masks.
    """
    if instances.has("box_masks"):
        return encode_box_masks(
            instances.box_masks, instances.pred_boxes.tensor, *instances.image_size
        )
    if instances.has("pred_masks"):
        masks = instances.pred_masks
        return encode_masks(masks.tensor if isinstance(masks, BitMasks) else masks)
    return None


def encode_masks(masks: torch.Tensor) -> list[dict[str, Any]]:
    """Encode masks of the image's size.

    Args:
        masks: (N, H, W) bool.

    Returns:
        N compressed run-length encodings.
    """
    # pycocotools takes Fortran order; transposing before the copy to NumPy saves it a second copy.
    columns = masks.transpose(1, 2).to(torch.uint8).contiguous().cpu().numpy()
    rles = mask_tools.encode(columns.transpose(2, 1, 0))
    return [rle | {"counts": rle["counts"].decode("ascii")} for rle in rles]


def _find_changes(
    maps: np.ndarray, boxes: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find where masks begin and end in column-major order.

    Returns:
        For each change the index of the mask and the pixel's number (x * height + y), ascending;
        two changes of one mask at the same pixel cancel.
    """
    owner, x = _columns(boxes, width)
    values = _interpolate_columns(
        maps, _to_map(x, boxes[owner, 0], boxes[owner, 2], maps.shape[2]), owner
    )
    inside = values >= THRESHOLD
    column, row = np.nonzero(inside[:, 1:] != inside[:, :-1])
    before, after = (
        values[column, row].astype(np.float64),
        values[column, row + 1].astype(np.float64),
    )
    # the values begin at row -1 of the map
    crossing = row - 1 + (THRESHOLD - before) / (after - before)
    owner, leaving = owner[column], before >= THRESHOLD
    y = _first_pixel(crossing, leaving, boxes[owner, 1], boxes[owner, 3], maps.shape[1]).clip(
        0, height
    )
    return owner, x[column] * height + y


def _columns(boxes: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mask index and x of every pixel column whose centres may lie in a box."""
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & np.isfinite(boxes).all(axis=1)
    boxes = np.where(has_area[:, None], boxes, 0)
    first = np.floor(boxes[:, 0] - 0.5).clip(0, width).astype(np.int64)
    last = np.ceil(boxes[:, 2] + 0.5).clip(0, width).astype(np.int64)
    counts = np.where(has_area, last - first, 0)
    owner = np.repeat(np.arange(len(boxes)), counts)
    return owner, np.arange(len(owner)) + (first - (np.cumsum(counts) - counts))[owner]


def _to_map(pixels: np.ndarray, start: np.ndarray, end: np.ndarray, size: int) -> np.ndarray:
    """Map pixel centres to positions in a map of ``size`` cells from ``start`` to ``end``.

    The float32 operations are in the order of Detectron2 and ``grid_sample``, so that pixels round
    the same way.
    """
    half = np.float32(0.5)
    scaled = (pixels.astype(np.float32) + half - start) / (end - start) * 2 - 1
    return ((scaled + 1) * size - 1) / 2


def _interpolate_columns(maps: np.ndarray, x: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Return (columns, M + 2) values of the maps at ``x``, with a row of zeros at each end."""
    size = maps.shape[2]
    padded = np.zeros((len(maps), size + 2, size + 2), dtype=np.float32)
    padded[:, 1:-1, 1:-1] = maps.transpose(0, 2, 1)
    padded = padded.reshape(-1, size + 2)
    left = np.floor(x).clip(-1, size - 1)
    share = (x - left)[:, None]
    index = owner * (size + 2) + left.astype(np.int64) + 1
    return padded[index] * (1 - share) + padded[index + 1] * share


def _first_pixel(
    crossing: np.ndarray, leaving: np.ndarray, start: np.ndarray, end: np.ndarray, size: int
) -> np.ndarray:
    """Return the first pixel at a crossing or behind it.

    Where a mask ends, it is the first pixel behind: the threshold itself is part of the mask.
    """

    def is_behind(pixels: np.ndarray) -> np.ndarray:
        position = _to_map(pixels, start, end, size)
        return np.where(leaving, position > crossing, position >= crossing)

    pixels = np.ceil((crossing + 0.5) / size * (end - start) + start - 0.5).astype(np.int64)
    pixels -= is_behind(pixels - 1)  # corrects float32 rounding
    return pixels + ~is_behind(pixels)


def _count_runs(
    owner: np.ndarray, pixel: np.ndarray, masks: int, pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the run lengths of all masks, concatenated, and the number of runs of each mask."""
    key = owner * (pixels + 1) + pixel
    is_first = np.diff(key, prepend=-1) != 0
    times = np.diff(np.flatnonzero(is_first), append=len(key))
    key = key[is_first][times % 2 == 1]
    owner, pixel = np.divmod(key, pixels + 1)
    owner, pixel = owner[pixel < pixels], pixel[pixel < pixels]
    runs = np.bincount(owner, minlength=masks) + 1
    ends = np.cumsum(runs)
    starts = ends - runs
    begin, end = np.zeros(ends[-1], dtype=np.int64), np.full(ends[-1], pixels)
    begin[np.delete(np.arange(ends[-1]), starts)] = pixel
    end[np.delete(np.arange(ends[-1]), ends - 1)] = pixel
    return end - begin, runs


def _compress(lengths: np.ndarray, runs: np.ndarray) -> list[str]:
    """Encode run lengths in COCO's format, as text.

    From the fourth run on, it stores the difference to the last run but one, in 5-bit digits.
    """
    ends = np.cumsum(runs)
    place = np.arange(len(lengths)) - np.repeat(ends - runs, runs)
    rest = lengths.copy()
    later = np.flatnonzero(place > 2)
    rest[later] -= lengths[later - 2]
    digits, written = [], []
    going_on = np.ones(len(rest), dtype=bool)
    while going_on.any():
        written.append(going_on)
        digit, rest = rest & 31, rest >> 5
        # The highest bit of the last digit is the sign.
        going_on = going_on & (rest != -(digit >> 4))
        digits.append((digit | going_on << 5) + 48)
    is_written = np.stack(written, axis=1)
    text = np.stack(digits, axis=1)[is_written].astype(np.uint8).tobytes().decode("ascii")
    breaks = np.concatenate([[0], np.cumsum(is_written.sum(axis=1))[ends - 1]])
    return [text[start:end] for start, end in zip(breaks[:-1], breaks[1:], strict=True)]


# The key of UnpastedMasks' output, which differs from a detector's usual output.
UNPASTED = "unpasted_instances"


class UnpastedMasks(nn.Module):
    """A Detectron2 R-CNN without its last step: boxes in pixels of its input, masks not pasted.

    Pasting and encoding masks is three quarters of the cost of Detectron2's mask evaluation.
    """

    def __init__(self, model: GeneralizedRCNN, bf16: bool = False) -> None:
        """
        Args:
            model: its ``inference`` is called instead of ``forward``.
            bf16: run under autocast, as ``forward`` does with ``SOLVER.AMP.DTYPE`` bfloat16.
        """
        super().__init__()
        self.model = model
        self.training = model.training
        self.bf16 = bf16

    @staticmethod
    def of(model: nn.Module, bf16: bool = False) -> nn.Module:
        """Wrap a Detectron2 R-CNN, without its DDP wrapper; return any other model unchanged."""
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        if (
            isinstance(inner, GeneralizedRCNN)
            and type(inner).inference is GeneralizedRCNN.inference
        ):
            return UnpastedMasks(inner, bf16)
        return model

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        device = self.model.device.type
        with (
            torch.autocast(device, dtype=torch.bfloat16) if self.bf16 else contextlib.nullcontext()
        ):
            found = self.model.inference(batched_inputs, do_postprocess=False)
        return [{UNPASTED: instances} for instances in found]


def instances_of(output: dict[str, Any], example: dict[str, Any]) -> Instances:
    """Return a detector's instances in one image, on the CPU, with boxes in image pixels.

    Args:
        output: the output of a model, or of :class:`UnpastedMasks`, for the image.
        example: the image's dataset dict, as for :func:`scale`.

    Raises:
        UserError: the output has no instances.
    """
    if UNPASTED in output:
        return scale(output[UNPASTED].to("cpu"), example)
    if "instances" not in output:
        raise UserError(f"The model returned {', '.join(output) or 'nothing'}, but no instances.")
    return output["instances"].to("cpu")


def scale(instances: Instances, example: dict[str, Any]) -> Instances:
    """Scale boxes to image pixels, as Detectron2's last step does, without pasting masks.

    Args:
        instances: the output of :class:`UnpastedMasks` for one image.
        example: the image's dataset dict; "height" and "width" are its size.

    Returns:
        New instances; masks are the field "box_masks". # shape: (N, M, M)
    """
    fields = dict(instances.get_fields())
    masks = fields.pop("pred_masks", None)
    scaled = Instances(instances.image_size, **fields)
    scaled.pred_boxes = instances.pred_boxes.clone()
    if masks is not None:
        scaled.box_masks = masks.tensor if isinstance(masks, ROIMasks) else masks[:, 0]
    height, width = instances.image_size
    return detector_postprocess(scaled, example.get("height", height), example.get("width", width))
