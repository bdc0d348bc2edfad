"""Backgrounds, clutter, light and noise: everything in a scene that is not an instance."""

from collections.abc import Callable

import cv2
import numpy as np

from virtex_det.data.datasets.scenes.rng import Rng
from virtex_det.data.datasets.scenes.shapes import COS, SIN, TURN, UNIT


def _rotated_axes(dice: Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of every pixel along two random perpendicular axes, shape (size, size), in pixels / 16."""
    angle = dice.below(TURN)
    x = np.arange(size, dtype=np.int32)[None, :]
    y = np.arange(size, dtype=np.int32)[:, None]
    return (x * COS[angle] + y * SIN[angle]) * 16 // UNIT, (y * COS[angle] - x * SIN[angle]) * 16 // UNIT


def _period(dice: Rng, size: int) -> int:
    """Return the wavelength of a pattern in pixels / 16: a sixteenth to a sixth of the image."""
    return dice.between(size, 16 * size // 6)


def _gradient(dice: Rng, size: int) -> np.ndarray:
    along, _ = _rotated_axes(dice, size)
    along = along - along.min()
    return along * 255 // max(int(along.max()), 1)


def _stripes(dice: Rng, size: int) -> np.ndarray:
    along, _ = _rotated_axes(dice, size)
    phase = along * TURN // _period(dice, size)
    # Clipping the sine steepens the edges of the stripes without making them jagged.
    return np.clip(128 + SIN[phase % TURN] // 12, 0, 255)


def _checkers(dice: Rng, size: int) -> np.ndarray:
    along, across = _rotated_axes(dice, size)
    period = _period(dice, size)
    product = SIN[along * TURN // period % TURN] * SIN[across * TURN // period % TURN] // UNIT
    return np.clip(128 + product // 4, 0, 255)


def _dots(dice: Rng, size: int) -> np.ndarray:
    along, across = _rotated_axes(dice, size)
    period = _period(dice, size)
    total = COS[along * TURN // period % TURN] + COS[across * TURN // period % TURN]
    return np.clip((total - UNIT) // 6, 0, 255)


def _clouds(dice: Rng, size: int) -> np.ndarray:
    coarse = dice.octets(dice.between(4, 9), dice.between(4, 9))
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR_EXACT).astype(np.int32)


# The word that captions use for a background -> how it mixes two colours: (size, size) of 0..255.
BACKGROUNDS: dict[str, Callable[[Rng, int], np.ndarray]] = {
    "smooth": _gradient,
    "striped": _stripes,
    "checkered": _checkers,
    "dotted": _dots,
    "cloudy": _clouds,
}


def _muted_color(dice: Rng, gray: int) -> np.ndarray:
    """Return a pale RGB colour around that gray, shape (3,), so that instances of every colour stand out."""
    return gray + dice.octets(3).astype(np.int32) % 49 - 24


def draw_background(dice: Rng, kind: str, size: int) -> np.ndarray:
    """Draw a textured background with its clutter: int32 RGB, shape (size, size, 3)."""
    gray = dice.between(72, 168)
    contrast = dice.between(26, 56) * dice.pick((-1, 1))
    first, second = _muted_color(dice, gray), _muted_color(dice, min(max(gray + contrast, 56), 184))
    mix = 3 * BACKGROUNDS[kind](dice, size) + _clouds(dice, size)
    canvas = (first + ((second - first) * mix[:, :, None] >> 10)).astype(np.uint8)
    for _ in range(dice.between(2, 5)):
        dice.pick(_CLUTTER)(dice, canvas)
    return canvas.astype(np.int32)


def _clutter_color(dice: Rng) -> tuple[int, int, int]:
    red, green, blue = (40 + dice.octets(3).astype(int) % 176).tolist()
    return red, green, blue


def _line(dice: Rng, canvas: np.ndarray) -> None:
    size = len(canvas)
    ends = [(dice.below(size), dice.below(size)) for _ in range(2)]
    thickness = dice.between(1, max(1, size // 48))
    cv2.line(canvas, ends[0], ends[1], _clutter_color(dice), thickness, cv2.LINE_AA)


def _curve(dice: Rng, canvas: np.ndarray) -> None:
    size = len(canvas)
    center = (dice.below(size), dice.below(size))
    axes = (dice.between(size // 8, size // 2), dice.between(size // 8, size // 2))
    angle, start = dice.below(TURN), dice.below(TURN)
    stop = start + dice.between(40, 150)
    thickness = dice.between(1, max(1, size // 48))
    cv2.ellipse(canvas, center, axes, angle, start, stop, _clutter_color(dice), thickness, cv2.LINE_AA)


def _blob(dice: Rng, canvas: np.ndarray) -> None:
    size = len(canvas)
    center = np.array([dice.below(size), dice.below(size)])
    angles = np.arange(0, TURN, 40)
    radii = dice.between(size // 16, size // 8) * (90 + dice.octets(len(angles)).astype(np.int64)) // 255
    points = center + np.stack([radii * COS[angles], radii * SIN[angles]], axis=1) // UNIT
    stain = canvas.copy()
    cv2.fillPoly(stain, [points.astype(np.int32)], _clutter_color(dice), cv2.LINE_AA)
    # Half transparent, so that no blob passes for a misshapen instance.
    canvas[:] = (canvas >> 1) + (stain >> 1)


def _noise_patch(dice: Rng, canvas: np.ndarray) -> None:
    size = len(canvas)
    height, width = (dice.between(size // 12, size // 4) for _ in range(2))
    top, left = dice.below(size - height), dice.below(size - width)
    patch = canvas[top : top + height, left : left + width]
    patch[:] = (patch.astype(np.int32) * 3 + dice.octets(height, width, 1)) // 4


_CLUTTER = (_line, _curve, _blob, _noise_patch)


def light_and_noise(dice: Rng, canvas: np.ndarray) -> np.ndarray:
    """Shade a finished scene with uneven light and grain.

    Args:
        dice: the scene's stream.
        canvas: int32 RGB, shape (size, size, 3), changed in place.

    Returns:
        uint8 RGB of the same shape.
    """
    size = len(canvas)
    corners = dice.octets(2, 2) // 3 + 171
    canvas *= cv2.resize(corners, (size, size), interpolation=cv2.INTER_LINEAR_EXACT)[:, :, None]
    canvas >>= 8
    # The sum of two uniform bytes is bell-shaped enough, and exact.
    first, second = dice.octets(2, size, size, 3)
    grain = np.add(first, second, dtype=np.int32) - 255
    canvas += grain * dice.between(6, 22) >> 8
    return np.clip(canvas, 0, 255).astype(np.uint8)
