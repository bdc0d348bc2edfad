"""Geometry of mouse traces: points in time intervals, crops and flips of points, masks."""

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Window(NamedTuple):
    """A part of an image, as fractions of its width and height."""

    left: float
    top: float
    width: float
    height: float


def points_within(
    times: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pair every time interval with the points in it, both ends included.

    Args:
        times: (points,), times of the points, ascending.
        starts: (intervals,), in the dtype of the times: 2.3 as float32 is not 2.3 as float64.
        ends: (intervals,); an interval that ends before its start has no points.

    Returns:
        The interval and the point of each pair, two int64 (pairs,), by interval and then by time.

    Example:
        >>> times = torch.tensor([0.0, 1.0, 2.0, 3.0])
        >>> points_within(times, torch.tensor([0.5, 3.0]), torch.tensor([2.0, 4.0]))
        (tensor([0, 0, 1]), tensor([1, 2, 3]))
    """
    first = torch.searchsorted(times, starts.contiguous())
    counts = (torch.searchsorted(times, ends.contiguous(), right=True) - first).clamp(min=0)
    intervals = torch.repeat_interleave(counts)
    position = torch.arange(len(intervals)) - torch.repeat_interleave(
        counts.cumsum(0) - counts, counts
    )
    return intervals, first[intervals] + position


def crop_points(points: torch.Tensor, window: Window) -> torch.Tensor:
    """Convert points (..., 2) from fractions of an image to fractions of a part of it."""
    return (points - points.new_tensor(window[:2])) / points.new_tensor(window[2:])


def flip_points(points: torch.Tensor) -> torch.Tensor:
    """Flip points (..., 2), x and y as fractions of an image, horizontally."""
    return torch.stack([1 - points[..., 0], points[..., 1]], dim=-1)


def inside(points: torch.Tensor) -> torch.Tensor:
    """Return which points (..., 2) are in the image; drop the others, never clip them."""
    return ((points >= 0) & (points < 1)).all(dim=-1)


def render(points: torch.Tensor, length: int, resolution: int) -> torch.Tensor:
    """Mark the cells that contain a token's points (LocTex: a binary target, without blur).

    Args:
        points: (points, 3): token, x and y of each point, x and y in [0, 1).
        length: number of tokens.
        resolution: cells per side.

    Returns:
        bool (length, resolution, resolution): token, row, column. The mask of a token without
        points is empty.

    Example:
        >>> render(torch.tensor([[1, 0.9, 0.1]]), length=2, resolution=2)[1]  # top right
        tensor([[False,  True],
                [False, False]])
    """
    # In float64, so that no value below 1 rounds up to the resolution.
    tokens, columns, rows = (
        (points.double() * points.new_tensor([1, resolution, resolution])).long().unbind(-1)
    )
    masks = torch.zeros(length, resolution, resolution, dtype=torch.bool, device=points.device)
    masks[tokens, rows, columns] = True
    return masks


def render_batch(points: Sequence[torch.Tensor], length: int, resolution: int) -> torch.Tensor:
    """Render the points of all captions of a batch, each padded to ``length`` tokens.

    Returns:
        bool (captions, length, resolution, resolution).
    """
    shifted = [
        each + each.new_tensor([length * number, 0, 0]) for number, each in enumerate(points)
    ]
    return render(torch.cat(shifted), length * len(points), resolution).unflatten(
        0, (len(points), length)
    )
