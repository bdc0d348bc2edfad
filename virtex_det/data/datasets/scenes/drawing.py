"""Draws one captioned scene: shapes on a textured background, with the exact mask of each."""

import functools
import math
from typing import NamedTuple

import cv2
import numpy as np

from virtex_det.data.datasets.scenes.captions import (
    VOCABULARIES,
    Caption,
    CaptionWriter,
    Instance,
    wording,
)
from virtex_det.data.datasets.scenes.rng import Rng
from virtex_det.data.datasets.scenes.shapes import COS, OUTLINES, SHAPES, SIN, TURN, UNIT, Outline
from virtex_det.data.datasets.scenes.textures import BACKGROUNDS, draw_background, light_and_noise
from virtex_det.errors import UserError

SPLITS: tuple[str, ...] = ("train", "val", "unlabelled")
MIN_IMAGE_SIZE = 48

# RGB around which the colour of each instance varies.
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (212, 44, 46),
    "yellow": (246, 218, 62),
    "green": (52, 156, 66),
    "blue": (40, 96, 214),
    "purple": (128, 62, 182),
    "white": (244, 244, 240),
}

# Smallest and largest full area, in millionths of the image's. With MIN_VISIBLE percent visible, an
# instance still has its size word by the limits below, whatever hides the rest.
DRAWN_AREA = {"small": (42_000, 55_000), "medium": (77_000, 100_000), "large": (140_000, 175_000)}
# Smallest visible area of a medium and of a large instance, in millionths of the image's.
MEDIUM_FROM, LARGE_FROM = 57_000, 103_000
# Smallest visible part of an instance, in percent.
MIN_VISIBLE = 75

MAX_INSTANCES = 3
# Degrees by which a shape leans to either side.
MAX_TILT = 25

_PLACES_TRIED = 8
# Subpixels per pixel and side: their count is the coverage of a pixel's edge.
_FINE = 4
_FULL = _FINE * _FINE


class Scene(NamedTuple):
    """One image with its masks, instances and captions.

    Masks contain visible pixels only: where shapes overlap, a pixel belongs to the last one drawn.
    """

    image: np.ndarray  # uint8 RGB, (size, size, 3)
    masks: np.ndarray  # bool, (instances, size, size)
    instances: tuple[Instance, ...]
    background: str  # a key of BACKGROUNDS
    said: tuple[Caption, ...]  # the captions as phrases

    @property
    def captions(self) -> tuple[str, ...]:
        """The captions as text."""
        return tuple(map(wording, self.said))

    @property
    def category_ids(self) -> tuple[int, ...]:
        """COCO category id of each instance: 1 + its shape's position in SHAPES."""
        return tuple(1 + SHAPES.index(instance.shape) for instance in self.instances)


class _Sprite(NamedTuple):
    """One shape, placed but not yet painted."""

    shape: str
    color: str
    outline: Outline  # contours in pixels / 64
    area: int  # whole area in pixels
    window: tuple[slice, slice]  # rows and columns of the image around it
    coverage: np.ndarray  # 0.._FULL per pixel of the window

    @property
    def solid(self) -> np.ndarray:
        """The shape's pixels in the window: those at least half covered."""
        return self.coverage * 2 >= _FULL


def draw_scene(
    seed: int = 0,
    split: str = "train",
    index: int = 0,
    image_size: int = 96,
    captions_per_image: int = 5,
    vocabulary: str = "names",
) -> Scene:
    """Draw one scene, the same for the same arguments on every machine.

    Args:
        seed: seed of the data set.
        split: "train", "val" or "unlabelled"; each has its own random stream.
        index: number of the scene within its split.
        image_size: side of the square image in pixels.
        captions_per_image: captions to write.
        vocabulary: what captions call the shapes: "names" of the detector's classes, or "synonyms"
            that share no word with them. It changes neither pixels nor other words.

    Returns:
        The scene: image, visible masks, instances, background and captions.

    Raises:
        UserError: an argument is out of range.

    Example:
        >>> scene = draw_scene(seed=0, split="val", index=3)
        >>> scene.image.shape, len(scene.masks) == len(scene.instances)
        ((96, 96, 3), True)
    """
    check_scene_arguments(seed, split, image_size, captions_per_image, vocabulary)
    rng = Rng(seed, (SPLITS.index(split), index))
    background = rng.pick(tuple(BACKGROUNDS))
    canvas = draw_background(rng, background, image_size)
    sprites, owner = _place_sprites(rng, image_size)
    light = rng.below(TURN)
    for sprite in sprites:
        _paint(rng, canvas, sprite, light)
    masks = owner == np.arange(1, len(sprites) + 1, dtype=np.uint8)[:, None, None]
    instances = tuple(_describe(sprite, mask) for sprite, mask in zip(sprites, masks, strict=True))
    image = light_and_noise(rng, canvas)
    # The captions come last in the stream: whatever they say, the image stays the same.
    writer = CaptionWriter(rng, instances, background, image_size, vocabulary)
    return Scene(image, masks, instances, background, writer.compose(captions_per_image))


def check_scene_arguments(
    seed: int, split: str, image_size: int, captions_per_image: int, vocabulary: str
) -> None:
    """Raise UserError if an argument of ``draw_scene`` is invalid."""
    if vocabulary not in VOCABULARIES:
        raise UserError(
            f"there is no vocabulary {vocabulary!r} for captions of scenes; expected one of: "
            f"{', '.join(VOCABULARIES)}"
        )
    if split not in SPLITS:
        raise UserError(f"there is no scenes split {split!r}; expected one of: {', '.join(SPLITS)}")
    if seed < 0:
        raise UserError(f"the seed of the scenes is {seed}; it must be 0 or more")
    if image_size < MIN_IMAGE_SIZE:
        raise UserError(
            f"an image size of {image_size} pixels is too small for scenes; use {MIN_IMAGE_SIZE} "
            "or more"
        )
    if captions_per_image < 1:
        raise UserError(
            f"captions_per_image is {captions_per_image}; scenes need 1 or more captions"
        )


def _place_sprites(rng: Rng, size: int) -> tuple[list[_Sprite], np.ndarray]:
    """Place one to MAX_INSTANCES shapes with enough of each visible; skip those without room.

    Returns:
        The sprites in painting order, and uint8 (size, size), the owner of each pixel: 0 for the
        background, otherwise 1 + the index of the sprite.
    """
    sprites: list[_Sprite] = []
    owner = np.zeros((size, size), dtype=np.uint8)
    visible, wanted = [size * size], [0]
    for _ in range(rng.between(1, MAX_INSTANCES)):
        shape, color, extent = (
            rng.pick(SHAPES),
            rng.pick(tuple(COLORS)),
            rng.pick(tuple(DRAWN_AREA)),
        )
        area = rng.between(*DRAWN_AREA[extent]) * size * size // 1_000_000
        wanted.append(-(-area * MIN_VISIBLE // 100))
        for _ in range(_PLACES_TRIED):
            sprite = _random_sprite(rng, shape, color, area, size)
            hidden = np.bincount(
                owner[sprite.window][sprite.solid], minlength=len(visible)
            ).tolist()
            remaining = [before - lost for before, lost in zip(visible, hidden, strict=True)] + [
                sum(hidden)
            ]
            if all(pixels >= least for pixels, least in zip(remaining, wanted, strict=True)):
                visible = remaining
                sprites.append(sprite)
                owner[sprite.window][sprite.solid] = len(sprites)
                break
        else:
            wanted.pop()
    return sprites, owner


def _random_sprite(rng: Rng, shape: str, color: str, area: int, size: int) -> _Sprite:
    """Place a shape with this area (pixels) at random, with a slight tilt and stretch."""
    side = math.isqrt(area * 64 * 64)
    stretch = rng.between(15, 17)
    angle = rng.between(-MAX_TILT, MAX_TILT) % TURN
    center = np.array([rng.between(5 * size, 59 * size), rng.between(5 * size, 59 * size)])
    outline = []
    for contour in OUTLINES[shape]:
        x = contour[:, 0] * side // UNIT * stretch // 16
        y = contour[:, 1] * side // UNIT * 16 // stretch
        turned = (
            np.stack([x * COS[angle] - y * SIN[angle], x * SIN[angle] + y * COS[angle]], axis=1)
            // UNIT
        )
        outline.append(turned + center)
    return _Sprite(shape, color, outline, area, *_rasterize(outline, size))


def _rasterize(outline: Outline, size: int) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return the image window around an outline, and the number of covered subpixels per pixel."""
    points = np.concatenate(outline)
    left, top = np.maximum(points.min(axis=0) // 64 - 1, 0).tolist()
    right, bottom = np.minimum(points.max(axis=0) // 64 + 2, size).tolist()
    height, width = max(bottom - top, 0), max(right - left, 0)
    fine = _filled(
        [contour - [64 * left, 64 * top] for contour in outline], height * _FINE, width * _FINE
    )
    # Strided sums: several times faster than sums over axes of length 4.
    rows = functools.reduce(np.add, [fine[k::_FINE] for k in range(_FINE)])
    coverage = functools.reduce(np.add, [rows[:, k::_FINE] for k in range(_FINE)])
    return (slice(top, bottom), slice(left, right)), coverage


def _filled(outline: Outline, height: int, width: int) -> np.ndarray:
    """Fill an outline by the even-odd rule: 1 for each subpixel whose centre is inside, else 0.

    Masks must be equal everywhere, but OpenCV's fillPoly changed in version 4.11.

    Args:
        outline: contours in pixels / 64.
        height: rows of subpixels.
        width: columns of subpixels.

    Returns:
        uint8, shape (height, width).
    """
    x, y = np.concatenate(outline).T
    next_x, next_y = np.concatenate(
        [part for contour in outline for part in (contour[1:], contour[:1])]
    ).T
    side = 64 // _FINE
    columns = np.arange(width) * side + side // 2
    edge, column = np.nonzero((x[:, None] <= columns) != (next_x[:, None] <= columns))
    crossing = y[edge] + (columns[column] - x[edge]) * (next_y - y)[edge] // (next_x - x)[edge]
    # The first row whose centre is at or below the crossing: inside and outside change there.
    row = np.minimum(np.maximum((crossing + side // 2 - 1) // side, 0), height)
    changes = np.bincount(row * width + column, minlength=(height + 1) * width).astype(np.uint8)
    return np.bitwise_xor.accumulate(changes.reshape(height + 1, width)[:-1] & 1, axis=0)


def _paint(rng: Rng, canvas: np.ndarray, sprite: _Sprite, light: int) -> None:
    """Paint a sprite with a drop shadow, uneven light and sometimes a dark rim."""
    size = len(canvas)
    away = (int(SIN[light]) * size // (48 * UNIT), int(COS[light]) * size // (48 * UNIT))
    window, shadow = _shifted(sprite, away, size)
    canvas[window] -= canvas[window] * shadow[:, :, None] * 5 >> 8

    texels = _lit(rng, sprite, light)
    if rng.below(2):
        inside = cv2.erode(
            sprite.coverage, np.ones((3, 3), np.uint8), iterations=max(1, size // 96)
        )
        texels = texels * (11 * _FULL + 5 * inside.astype(np.int32))[:, :, None] >> 8
    target = canvas[sprite.window]
    target += (texels - target) * sprite.coverage[:, :, None] >> 4


def _shifted(
    sprite: _Sprite, by: tuple[int, int], size: int
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return a sprite's window and coverage, shifted by whole pixels and clipped to the image."""
    starts = [old.start + step for old, step in zip(sprite.window, by, strict=True)]
    stops = [old.stop + step for old, step in zip(sprite.window, by, strict=True)]
    rows, columns = (
        slice(max(start, 0), min(stop, size)) for start, stop in zip(starts, stops, strict=True)
    )
    top, left = starts
    coverage = sprite.coverage[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
    return (rows, columns), coverage


def _lit(rng: Rng, sprite: _Sprite, light: int) -> np.ndarray:
    """Return the colours (height, width, 3) of a sprite's window, darker away from the light."""
    height, width = sprite.coverage.shape
    paint = (np.array(COLORS[sprite.color]) + rng.octets(3) % 37 - 18).astype(np.int32)
    strength = rng.between(8, 40)
    across = (np.arange(width) * 2 - width) * COS[light] * strength
    down = (np.arange(height) * 2 - height) * SIN[light] * strength
    shade = -((across + down[:, None]) // (UNIT * max(height, width))).astype(np.int32)
    return np.minimum(np.maximum(paint + shade[:, :, None], 0), 255)


def _describe(sprite: _Sprite, mask: np.ndarray) -> Instance:
    """Return an instance with the size word and the box of its visible mask."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(xs[0]), int(ys[0])
    box = (left, top, int(xs[-1]) + 1 - left, int(ys[-1]) + 1 - top)
    area = int(mask.sum())
    millionths = area * 1_000_000 // mask.size
    size = "small" if millionths < MEDIUM_FROM else "medium" if millionths < LARGE_FROM else "large"
    return Instance(sprite.shape, sprite.color, size, area, box)
