"""The eight shape classes as integer outlines of equal area."""

import numpy as np

# One unit square has sides of UNIT; the outlines below all have its area.
UNIT = 4096
TURN = 360

# Rounded once, far from any tie; all later geometry is in integers, equal on every machine.
COS = np.rint(UNIT * np.cos(np.deg2rad(np.arange(TURN)))).astype(np.int32)
SIN = np.rint(UNIT * np.sin(np.deg2rad(np.arange(TURN)))).astype(np.int32)

# A closed contour is an int64 array (points, 2) of x, y with y down; a hole has the opposite
# orientation.
Outline = list[np.ndarray]


def _arc(radius: int, start: int, stop: int, step: int = 6, center_x: int = 0) -> np.ndarray:
    degrees = np.arange(start, stop + (1 if step > 0 else -1), step) % TURN
    return np.stack(
        [center_x + radius * COS[degrees] // UNIT, radius * SIN[degrees] // UNIT], axis=1
    )


def _polygon(*points: tuple[int, int]) -> np.ndarray:
    return np.array(points, dtype=np.int64)


def _star() -> np.ndarray:
    points = _arc(1000, -90, 269, 36)
    points[1::2] = points[1::2] * 9 // 20
    return points


def _cross() -> np.ndarray:
    arm = [(-17, -50), (17, -50), (17, -17), (50, -17), (50, 17), (17, 17)]
    return 20 * _polygon(*arm, *((-x, -y) for x, y in arm))


def _heart() -> np.ndarray:
    t = np.arange(0, TURN, 9)
    sine = SIN[t] // 16
    x = 16 * sine**3 // 256**2
    y = (13 * COS[t] - 5 * COS[2 * t % TURN] - 2 * COS[3 * t % TURN] - COS[4 * t % TURN]) // 16
    return np.stack([x, -y], axis=1)


def _crescent() -> np.ndarray:
    # The inner arc runs back between the tips of the outer one: tips at 50 degrees, inner center at
    # 0.35 radii.
    return np.concatenate([_arc(1000, 50, 310, 5), _arc(820, 290, 70, -5, center_x=350)])


def _area(outline: Outline) -> float:
    """Return the enclosed area (shoelace formula); holes count against it."""
    doubled = 0
    for contour in outline:
        ahead = np.roll(contour, -1, axis=0)
        doubled += int((contour[:, 0] * ahead[:, 1] - contour[:, 1] * ahead[:, 0]).sum())
    return abs(doubled) / 2


def _normalized(outline: Outline) -> Outline:
    """Centre the bounding box at the origin and scale to unit area."""
    points = np.concatenate(outline)
    center = (points.min(axis=0) + points.max(axis=0)) // 2
    scale = UNIT / np.sqrt(_area(outline))
    return [np.rint((contour - center) * scale).astype(np.int64) for contour in outline]


OUTLINES: dict[str, Outline] = {
    name: _normalized(outline)
    for name, outline in {
        "circle": [_arc(1000, 0, 354)],
        "square": [_polygon((-900, -900), (900, -900), (900, 900), (-900, 900))],
        "triangle": [_arc(1000, -90, 150, 120)],
        "star": [_star()],
        "cross": [_cross()],
        "ring": [_arc(1000, 0, 354), _arc(560, 360, 6, -6)],
        "heart": [_heart()],
        "crescent": [_crescent()],
    }.items()
}

# Class names in the order of the category ids 1, 2, ...
SHAPES: tuple[str, ...] = tuple(OUTLINES)
