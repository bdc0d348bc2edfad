"""Narrations of a scene: the time of each word, and the trace of the narrator's pointer."""

from typing import NamedTuple

import numpy as np

from virtex_det.data.datasets.scenes.captions import Caption
from virtex_det.data.datasets.scenes.drawing import SPLITS, Scene
from virtex_det.data.datasets.scenes.rng import Rng

# Length of the image's side in the units of a trace.
SIDE = 10_000

# Smallest and largest times in milliseconds: 2.5 words and 30 points per second.
_BEFORE_SPEECH = (200, 700)
_WORD = (250, 450)
_PAUSE = (0, 100)
_BETWEEN_POINTS = (28, 38)
_BETWEEN_TARGETS = (100, 200)

# Largest start distance of the pointer outside the image, and largest shake.
_BAND = 800
_SHAKE = 60
# Attempts to find a target whose path stays on the shape.
_TARGETS_TRIED = 4


class Word(NamedTuple):
    """A word, its interval in milliseconds, and the index of the instance it belongs to."""

    text: str
    start: int
    end: int
    instance: int | None


class Narration(NamedTuple):
    """A spoken caption, and the pointer's trace."""

    words: tuple[Word, ...]
    points: np.ndarray  # int64, (points, 3): x and y in units of 1 / SIDE, milliseconds


def narrate(scene: Scene, seed: int, split: str, index: int) -> tuple[Narration, ...]:
    """Narrate the captions of a scene, the same for the same arguments on every machine.

    The pointer scribbles over an instance while it is named, and moves on in between; after the
    last one it goes anywhere in the image. It may start outside the image.

    Args:
        scene: a scene of ``draw_scene``.
        seed: seed of the scene.
        split: its split.
        index: its number within the split.

    Returns:
        One narration per caption.
    """
    # A separate stream: narrations do not change the image and the captions.
    rng = Rng(seed, (SPLITS.index(split), index, 1))
    pixels = [np.flatnonzero(mask) for mask in scene.masks]
    return tuple(_narrate(rng, scene, pixels, caption) for caption in scene.said)


def _narrate(rng: Rng, scene: Scene, pixels: list[np.ndarray], caption: Caption) -> Narration:
    words: list[Word] = []
    stops = [(0, rng.between(-_BAND, SIDE + _BAND), rng.between(-_BAND, SIDE + _BAND))]
    clock = rng.between(*_BEFORE_SPEECH)
    for phrase in caption:
        instance = None if phrase.instance is None else scene.instances.index(phrase.instance)
        start = clock
        for text in phrase.text.split():
            end = clock + rng.between(*_WORD)
            words.append(Word(text, clock, end, instance))
            clock = end + rng.between(*_PAUSE)
        if instance is not None:
            stops += _scribble(rng, scene.masks[instance], pixels[instance], start, words[-1].end)
    if stops[-1][0] < words[-1].end:
        stops.append((words[-1].end, rng.between(0, SIDE), rng.between(0, SIDE)))
    return Narration(tuple(words), _pointer(rng, np.array(stops)))


def _scribble(
    rng: Rng, mask: np.ndarray, pixels: np.ndarray, start: int, end: int
) -> list[tuple[int, int, int]]:
    """Return stops (time, x, y) on a shape while its name is spoken."""
    size, times = len(mask), [start]
    while times[-1] + _BETWEEN_TARGETS[1] < end:
        times.append(times[-1] + rng.between(*_BETWEEN_TARGETS))
    stops: list[tuple[int, int, int]] = []
    row, column = divmod(int(pixels[rng.below(len(pixels))]), size)
    for time in [*times, end]:
        for _ in range(_TARGETS_TRIED):
            next_row, next_column = divmod(int(pixels[rng.below(len(pixels))]), size)
            if mask[(row + next_row) // 2, (column + next_column) // 2]:
                break
        row, column = next_row, next_column
        stops.append(
            (time, (2 * column + 1) * SIDE // (2 * size), (2 * row + 1) * SIDE // (2 * size))
        )
    return stops


def _pointer(rng: Rng, stops: np.ndarray) -> np.ndarray:
    """Move from stop to stop in straight lines with a shaking hand, in integer arithmetic."""
    shortest, longest = _BETWEEN_POINTS
    count = int(stops[-1, 0]) // shortest
    steps = shortest + rng.octets(count).astype(np.int64) % (longest - shortest + 1)
    times = np.concatenate([[0], steps.cumsum()])
    times = times[times < stops[-1, 0]]
    before = np.searchsorted(stops[:, 0], times, side="right") - 1
    (start, *origin), (end, *target) = stops[before].T, stops[before + 1].T
    way = [
        a + (b - a) * (times - start) // (end - start) for a, b in zip(origin, target, strict=True)
    ]
    shake = rng.octets(2, len(times)).astype(np.int64) % (2 * _SHAKE + 1) - _SHAKE
    return np.stack([*(way + shake), times], axis=1)
