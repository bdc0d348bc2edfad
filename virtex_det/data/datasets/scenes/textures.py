"""Backgrounds, clutter, light and noise: everything in a scene that is not an instance."""

from collections.abc import Callable

import cv2
import numpy as np

from virtex_det.data.datasets.scenes.rng import Rng
from virtex_det.data.datasets.scenes.shapes import COS, SIN, TURN, UNIT


def _rotated_axes(rng: Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pixel coordinates (size, size) along two random perpendicular axes, in pixels / 16."""
    angle = rng.below(TURN)
    x = np.arange(size, dtype=np.int32)[None, :]
    y = np.arange(size, dtype=np.int32)[:, None]
    return (x * COS[angle] + y * SIN[angle]) * 16 // UNIT, (
        y * COS[angle] - x * SIN[angle]
    ) * 16 // UNIT


def _period(rng: Rng, size: int) -> int:
    """Return the wavelength of a pattern in pixels / 16: a sixteenth to a sixth of the image."""
    return rng.between(size, 16 * size // 6)


def _gradient(rng: Rng, size: int) -> np.ndarray:
    along, _ = _rotated_axes(rng, size)
    along = along - along.min()
    return along * 255 // max(int(along.max()), 1)


def _stripes(rng: Rng, size: int) -> np.ndarray:
    along, _ = _rotated_axes(rng, size)
    phase = along * TURN // _period(rng, size)
    # A clipped sine has steep but smooth edges.
    return np.clip(128 + SIN[phase % TURN] // 12, 0, 255)


def _checkers(rng: Rng, size: int) -> np.ndarray:
    along, across = _rotated_axes(rng, size)
    period = _period(rng, size)
    product = SIN[along * TURN // period % TURN] * SIN[across * TURN // period % TURN] // UNIT
    return np.clip(128 + product // 4, 0, 255)


def _dots(rng: Rng, size: int) -> np.ndarray:
    along, across = _rotated_axes(rng, size)
    period = _period(rng, size)
    total = COS[along * TURN // period % TURN] + COS[across * TURN // period % TURN]
    return np.clip((total - UNIT) // 6, 0, 255)


def _clouds(rng: Rng, size: int) -> np.ndarray:
    coarse = rng.octets(rng.between(4, 9), rng.between(4, 9))
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR_EXACT).astype(np.int32)


# The name of a background, and its mix of two colours: (size, size) of 0..255.
BACKGROUNDS: dict[str, Callable[[Rng, int], np.ndarray]] = {
    "smooth": _gradient,
    "striped": _stripes,
    "checkered": _checkers,
    "dotted": _dots,
    "cloudy": _clouds,
}


def _muted_color(rng: Rng, gray: int) -> np.ndarray:
    """Return a pale RGB colour (3,) near this gray, so that instances of every colour stand out."""
    return gray + rng.octets(3).astype(np.int32) % 49 - 24


def draw_background(rng: Rng, kind: str, size: int) -> np.ndarray:
    """Draw a textured background with clutter: int32 RGB (size, size, 3)."""
    gray = rng.between(72, 168)
    contrast = rng.between(26, 56) * rng.pick((-1, 1))
    first, second = _muted_color(rng, gray), _muted_color(rng, min(max(gray + contrast, 56), 184))
    mix = 3 * BACKGROUNDS[kind](rng, size) + _clouds(rng, size)
    canvas = (first + ((second - first) * mix[:, :, None] >> 10)).astype(np.uint8)
    for _ in range(rng.between(2, 5)):
        rng.pick(_CLUTTER)(rng, canvas)
    return canvas.astype(np.int32)


def _clutter_color(rng: Rng) -> tuple[int, int, int]:
    red, green, blue = (40 + rng.octets(3).astype(int) % 176).tolist()
    return red, green, blue


def _line(rng: Rng, canvas: np.ndarray) -> None:
    size = len(canvas)
    ends = [(rng.below(size), rng.below(size)) for _ in range(2)]
    thickness = rng.between(1, max(1, size // 48))
    cv2.line(canvas, ends[0], ends[1], _clutter_color(rng), thickness, cv2.LINE_AA)


def _curve(rng: Rng, canvas: np.ndarray) -> None:
    size = len(canvas)
    center = (rng.below(size), rng.below(size))
    axes = (rng.between(size // 8, size // 2), rng.between(size // 8, size // 2))
    angle, start = rng.below(TURN), rng.below(TURN)
    stop = start + rng.between(40, 150)
    thickness = rng.between(1, max(1, size // 48))
    cv2.ellipse(
        canvas, center, axes, angle, start, stop, _clutter_color(rng), thickness, cv2.LINE_AA
    )


def _blob(rng: Rng, canvas: np.ndarray) -> None:
    size = len(canvas)
    center = np.array([rng.below(size), rng.below(size)])
    angles = np.arange(0, TURN, 40)
    radii = (
        rng.between(size // 16, size // 8) * (90 + rng.octets(len(angles)).astype(np.int64)) // 255
    )
    points = center + np.stack([radii * COS[angles], radii * SIN[angles]], axis=1) // UNIT
    stain = canvas.copy()
    cv2.fillPoly(stain, [points.astype(np.int32)], _clutter_color(rng), cv2.LINE_AA)
    # Half transparent, so that no blob looks like an instance.
    canvas[:] = (canvas >> 1) + (stain >> 1)


def _noise_patch(rng: Rng, canvas: np.ndarray) -> None:
    size = len(canvas)
    height, width = (rng.between(size // 12, size // 4) for _ in range(2))
    top, left = rng.below(size - height), rng.below(size - width)
    patch = canvas[top : top + height, left : left + width]
    patch[:] = (patch.astype(np.int32) * 3 + rng.octets(height, width, 1)) // 4


_CLUTTER = (_line, _curve, _blob, _noise_patch)


def light_and_noise(rng: Rng, canvas: np.ndarray) -> np.ndarray:
    """Shade a finished scene with uneven light and grain.

    Args:
        rng: the scene's stream.
        canvas: int32 RGB, shape (size, size, 3), changed in place.

    Returns:
        uint8 RGB of the same shape.
    """
    size = len(canvas)
    corners = rng.octets(2, 2) // 3 + 171
    canvas *= cv2.resize(corners, (size, size), interpolation=cv2.INTER_LINEAR_EXACT)[:, :, None]
    canvas >>= 8
    # The sum of two uniform bytes is bell-shaped enough, and exact.
    first, second = rng.octets(2, size, size, 3)
    grain = np.add(first, second, dtype=np.int32) - 255
    canvas += grain * rng.between(6, 22) >> 8
    return np.clip(canvas, 0, 255).astype(np.uint8)
