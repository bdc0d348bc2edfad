"""Geometry of mouse traces: points of an interval, points under a crop and a flip, points as masks."""

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Window(NamedTuple):
    """A part of an image, in shares of its width and height."""

    left: float
    top: float
    width: float
    height: float


def points_within(times: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pair every interval with the points of its time, both ends included.

    Args:
        times: of the points, ascending, shape (points,).
        starts: of the intervals, shape (intervals,), in the type of the times: 2.3 as float32 is not 2.3 as float64.
        ends: of the intervals, likewise; one that ends before it starts has no points.

    Returns:
        Interval and point of each pair, int64, shape (pairs,), by interval and then by time.
    """
    first = torch.searchsorted(times, starts.contiguous())
    counts = (torch.searchsorted(times, ends.contiguous(), right=True) - first).clamp(min=0)
    intervals = torch.repeat_interleave(counts)
    position = torch.arange(len(intervals)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return intervals, first[intervals] + position


def crop_points(points: torch.Tensor, window: Window) -> torch.Tensor:
    """Express points (..., 2), x and y in shares of an image, in shares of a part of it."""
    return (points - points.new_tensor(window[:2])) / points.new_tensor(window[2:])


def flip_points(points: torch.Tensor) -> torch.Tensor:
    """Mirror points (..., 2), x and y in shares of an image, left to right."""
    return torch.stack([1 - points[..., 0], points[..., 1]], dim=-1)


def inside(points: torch.Tensor) -> torch.Tensor:
    """Say of points (..., 2) which lie in the image; those that do not are to be dropped, never moved to its edge."""
    return ((points >= 0) & (points < 1)).all(dim=-1)


def render(points: torch.Tensor, length: int, resolution: int) -> torch.Tensor:
    """Mark the cells that each token's points fall into (LocTex: a binary target, without blur).

    Args:
        points: token, x and y of each point, shape (points, 3), x and y in [0, 1).
        length: number of tokens.
        resolution: cells per side.

    Returns:
        bool, shape (length, resolution, resolution): token, row, column. A token without points has an empty mask.
    """
    # float64: nothing below 1 rounds up to the resolution.
    tokens, columns, rows = (points.double() * points.new_tensor([1, resolution, resolution])).long().unbind(-1)
    masks = torch.zeros(length, resolution, resolution, dtype=torch.bool, device=points.device)
    masks[tokens, rows, columns] = True
    return masks


def render_batch(points: Sequence[torch.Tensor], length: int, resolution: int) -> torch.Tensor:
    """Render the points of a batch's captions, each padded to ``length`` tokens, at once.

    Returns:
        bool, shape (captions, length, resolution, resolution).
    """
    shifted = [each + each.new_tensor([length * number, 0, 0]) for number, each in enumerate(points)]
    return render(torch.cat(shifted), length * len(points), resolution).unflatten(0, (len(points), length))
