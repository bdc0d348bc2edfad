"""Objects marked in a picture: outlines seen on any ground, and labels that do not overlap."""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from virtex_det.escaping import visible

Colour = tuple[int, int, int]  # RGB

_EDGE: Colour = (20, 20, 20)
_FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
_TEXT: Colour = (10, 10, 10)
_PAD = 3  # pixels around the text of a label
_MOST_COVERED = 0.1  # of a label by others, more than which leaves it out
_MOST_LABELS = 0.2  # of the picture that labels take in all


class Mark(NamedTuple):
    """An object to be drawn.

    Attributes:
        contours: its closed outlines, corners x, y in pixels. # shape: each (M, 2)
        label: its text; "" for none.
        colour: of the outline and of the label's ground; light, for the text is dark.
        dash: lengths of a dash and of the gap after it, in widths of the line; None: solid.
    """

    contours: Sequence[np.ndarray]
    label: str
    colour: Colour
    dash: tuple[float, float] | None = None


class _Box(NamedTuple):
    left: int
    top: int
    right: int
    bottom: int


def draw_marks(
    pixels: np.ndarray, marks: Sequence[Mark], type_size: int, line_width: int = 2
) -> np.ndarray:
    """Draw outlines, and labels over them.

    Labels take a fifth of the picture at most, and none covers another: the first ones stay.

    Args:
        pixels: (H, W, 3) uint8 RGB, which stay as they are.
        marks: what is drawn, the most important first.
        type_size: height of the labels' type in pixels.
        line_width: of the outlines in pixels, without their dark edge.

    Returns:
        Of the shape and type of ``pixels``. No pixel inside an outline changes its colour.
    """
    canvas = np.ascontiguousarray(pixels).copy()
    for mark in reversed(marks):
        _draw_outline(canvas, mark, line_width)
    picture = Image.fromarray(canvas)
    _draw_labels(picture, marks, ImageFont.truetype(str(_FONT), type_size))
    return np.asarray(picture)


def draw_remark(pixels: np.ndarray, text: str, type_size: int) -> np.ndarray:
    """Write a line, light on dark, into the lower left corner; arguments as of ``draw_marks``."""
    picture = Image.fromarray(pixels)
    font = ImageFont.truetype(str(_FONT), type_size)
    text = _fitted(text, font, picture.width)
    width, height = (side + 2 * _PAD for side in _size(text, font))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, picture.height - height, width, picture.height), _EDGE)
    pen.text((2 * _PAD, picture.height - height / 2), text, (255, 255, 255), font, anchor="lm")
    return np.asarray(picture)


def mask_contours(mask: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """Return the outlines of a mask, those of its holes too, in a picture of another size.

    Args:
        mask: (h, w) of 0 and 1.
        size: height and width of the picture.
    """
    smooth = cv2.resize(mask.astype(np.uint8) * 255, size[::-1], interpolation=cv2.INTER_LINEAR)
    found, _ = cv2.findContours(
        (smooth > 127).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    return [contour[:, 0].astype(float) for contour in found]


def box_contour(box: Sequence[float]) -> np.ndarray:
    """Return the corners of a box x0, y0, x1, y1. # shape: (4, 2)"""
    x0, y0, x1, y1 = box
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)


def _draw_outline(canvas: np.ndarray, mark: Mark, width: int) -> None:
    lines = [_dashes(contour, mark.dash, width) for contour in mark.contours if len(contour)]
    for colour, thickness in ((_EDGE, width + 2), (mark.colour, width)):
        for pieces in lines:
            is_closed = mark.dash is None
            cv2.polylines(canvas, pieces, is_closed, colour, thickness, cv2.LINE_AA, shift=4)


def _dashes(contour: np.ndarray, dash: tuple[float, float] | None, width: int) -> list[np.ndarray]:
    """Cut a closed outline into dashes, in sixteenths of a pixel; one piece without dashes."""
    if dash is None:
        return [(16 * contour).round().astype(np.int32)]
    closed = np.concatenate([contour, contour[:1]])
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    drawn, gap = (max(part * width, 1.0) for part in dash)
    pieces = []
    for start in np.arange(0, along[-1], drawn + gap):
        steps = np.linspace(start, min(start + drawn, along[-1]), 5)
        points = np.stack([np.interp(steps, along, closed[:, axis]) for axis in (0, 1)], axis=1)
        pieces.append((16 * points).round().astype(np.int32))
    return pieces


def _draw_labels(picture: Image.Image, marks: Sequence[Mark], font: ImageFont.FreeTypeFont) -> None:
    pen = ImageDraw.Draw(picture)
    taken: list[_Box] = []
    room = _MOST_LABELS * picture.width * picture.height
    for mark in marks:
        corners = [contour for contour in mark.contours if len(contour)]
        if not (mark.label and corners):
            continue
        text = _fitted(visible(mark.label, ""), font, picture.width)
        size = _size(text, font)
        area = size[0] * size[1]
        box = _free_place(_bounds(corners), size, picture.size, taken)
        if box is not None and (area <= room or not taken):
            room -= area
            taken.append(box)
            pen.rectangle(box, mark.colour, _EDGE)
            pen.text((box.left + _PAD, (box.top + box.bottom) / 2), text, _TEXT, font, anchor="lm")


def _fitted(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Return a text with its middle left out where it is wider than the picture."""
    room = float(width - 2 * _PAD)
    if len(text) <= 3 or font.getlength(text) <= room:
        return text

    def without_middle(kept: int) -> str:
        begin = kept // 2
        return f"{text[:begin]}…{text[len(text) - kept + begin :]}"

    lengths = range(3, len(text))
    too_long = bisect_right(lengths, room, key=lambda kept: font.getlength(without_middle(kept)))
    return without_middle(lengths[max(too_long - 1, 0)])


def _size(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    return round(font.getlength(text)) + 2 * _PAD, round(font.size) + 2 * _PAD


def _bounds(contours: Sequence[np.ndarray]) -> _Box:
    points = np.concatenate(contours)
    return _Box(*points.min(axis=0).astype(int), *points.max(axis=0).astype(int))


def _free_place(
    around: _Box, size: tuple[int, int], canvas: tuple[int, int], taken: Sequence[_Box]
) -> _Box | None:
    """Return where a label stands at its object: where the others cover it least."""
    width, height = size
    places = [
        (around.left, around.top - height - 1),
        (around.left, around.bottom + 1),
        (around.right - width, around.top - height - 1),
        (around.right - width, around.bottom + 1),
        (around.left, around.top + 1),
        (around.left, around.bottom - height - 1),
        (around.right + 2, around.top),
        (around.left - width - 2, around.top),
        ((around.left + around.right - width) // 2, (around.top + around.bottom - height) // 2),
    ]
    boxes = []
    for x, y in places:
        left = max(min(x, canvas[0] - width - 1), 0)
        top = max(min(y, canvas[1] - height - 1), 0)
        boxes.append(_Box(left, top, left + width, top + height))
    best = min(boxes, key=lambda box: _covered(box, taken))
    return best if _covered(best, taken) <= _MOST_COVERED * width * height else None


def _covered(box: _Box, taken: Sequence[_Box]) -> int:
    """Return how many pixels of a label others cover."""
    total = 0
    for other in taken:
        width = min(box.right, other.right) - max(box.left, other.left)
        height = min(box.bottom, other.bottom) - max(box.top, other.top)
        total += max(width, 0) * max(height, 0)
    return total
