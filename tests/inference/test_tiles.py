"""Pictures in tiles: what each tile gives, in its place, each object once."""

import sys

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

import virtex_det as vd
from virtex_det.errors import UserError
from virtex_det.inference.tiles import Tiling, detect_in_tiles

SQUARES = [(0, 0), (30, 60), (50, 50), (92, 142)]  # corners, edges, where tiles overlap


def bright_spots(pictures):
    """A detector that finds white squares of 8 pixels, if the picture shows them in full size."""
    found = []
    for pixels in pictures:
        height, width = pixels.shape[:2]
        instances = Instances((height, width))
        corners = [] if max(height, width) > 64 else _corners(pixels)
        boxes = torch.tensor([(x, y, x + 8, y + 8) for y, x in corners]).float().reshape(-1, 4)
        instances.pred_boxes = Boxes(boxes)
        instances.scores = torch.tensor([0.5 + x / 200 for _, x in corners])
        instances.pred_classes = torch.zeros(len(corners), dtype=torch.int64)
        instances.box_masks = torch.ones(len(corners), 4, 4) * instances.scores[:, None, None]
        found.append(instances)
    return found


def _corners(pixels):
    """The upper left corners of the squares that lie within the pixels."""
    white = np.argwhere((pixels[:-7, :-7, 0] == 255) & (pixels[7:, 7:, 0] == 255))
    return [tuple(corner) for corner in white.tolist()]


@pytest.fixture
def picture():
    pixels = np.zeros((100, 150, 3), np.uint8)
    for y, x in SQUARES:
        pixels[y : y + 8, x : x + 8] = 255
    return pixels


@pytest.mark.parametrize("batch_size", [1, 3])
def test_objects_of_all_tiles_are_found_once_and_in_their_place(picture, batch_size):
    pytest.importorskip("supervision")
    found = detect_in_tiles(picture, bright_spots, Tiling(64, 16), 0.5, batch_size)
    places = {(int(y), int(x)) for x, y, *_ in found.pred_boxes.tensor.tolist()}
    assert places == {*SQUARES} and len(found) == len(SQUARES)
    assert found.image_size == (100, 150) and found.pred_boxes.tensor.dtype == torch.float32
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert torch.equal(found.box_masks[:, 0, 0], found.scores)  # masks go with their boxes


def test_an_object_that_tiles_cut_is_left_to_the_whole_picture():
    pytest.importorskip("supervision")
    pixels = np.zeros((100, 150, 3), np.uint8)
    pixels[20:100, 30:120] = 255  # ends at the picture's lower edge

    def surrounding(pictures):
        """A detector that finds all white together, and is the surer the less of it there is."""
        found = []
        for each in pictures:
            instances = Instances(each.shape[:2])
            y, x = np.nonzero(each[:, :, 0])
            box = [[x.min(), y.min(), x.max() + 1, y.max() + 1]] if len(x) else []
            instances.pred_boxes = Boxes(torch.tensor(box).float().reshape(-1, 4))
            instances.scores = torch.tensor([1 - len(x) / 20_000] * len(box))
            instances.pred_classes = torch.zeros(len(box), dtype=torch.int64)
            found.append(instances)
        return found

    found = detect_in_tiles(pixels, surrounding, Tiling(64, 16), 0.5, 1)
    assert found.pred_boxes.tensor.tolist() == [[30, 20, 120, 100]]


def test_a_picture_no_larger_than_a_tile_is_seen_once_as_it_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)  # not needed
    seen = []

    def detect(pictures):
        seen.extend(pictures)
        return bright_spots(pictures)

    pixels = np.zeros((64, 40, 3), np.uint8)
    assert not len(detect_in_tiles(pixels, detect, Tiling(64, 16), 0.5, 1)) and len(seen) == 1


def test_nothing_in_any_tile_is_nothing():
    pytest.importorskip("supervision")
    found = detect_in_tiles(np.zeros((100, 90, 3), np.uint8), bright_spots, Tiling(64, 0), 0.5, 1)
    assert len(found) == 0 and found.image_size == (100, 90)


@pytest.mark.parametrize("side", [0, 1, 31])
def test_tiles_that_show_nothing_are_refused(side):
    with pytest.raises(UserError, match="expected at least 32"):
        Tiling(side, 0).check()


@pytest.mark.parametrize("tiling", [(64, 64), (64, -1)])
def test_tiles_that_cover_nothing_are_refused(tiling):
    with pytest.raises(UserError, match="do not cover a picture"):
        Tiling(*tiling).check()


def test_without_supervision_the_package_is_named(picture, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match=r"pip install 'virtex_det\[predict\]'"):
        detect_in_tiles(picture, bright_spots, Tiling(64, 16), 0.5, 1)


def test_a_detector_joins_the_masks_of_tiles_in_the_picture(detector_run, scenes):
    pytest.importorskip("supervision")
    tile = np.asarray(Image.open(next((scenes / "val").glob("*.png"))).convert("RGB"))
    side = len(tile)
    pixels = np.concatenate([np.zeros_like(tile), tile], axis=1)
    alone = vd.Detector(detector_run, maximum=5)(tile)
    tiled = vd.Detector(detector_run, tile=side, tile_overlap=0, maximum=1000)(pixels)
    moved = {tuple(box) for box in (alone.boxes + [side, 0, side, 0]).astype(np.float32).tolist()}
    places = [n for n, box in enumerate(tiled.boxes.tolist()) if tuple(box) in moved]
    assert len(places) >= 3  # others give way to what the whole picture shows
    of_box = {tuple(box): mask for box, mask in zip(tiled.boxes.tolist(), tiled.masks, strict=True)}
    for box, mask in zip(alone.boxes.tolist(), alone.masks, strict=True):
        x0, y0, x1, y1 = box
        joined = of_box.get((x0 + side, y0, x1 + side, y1))
        if joined is not None:
            assert not joined[:, :side].any()
            assert (joined[:, side:] != mask).mean() < 0.001  # the box moves by whole pixels
    assert tiled.image_size == (side, 2 * side)
    assert (np.diff(tiled.scores) <= 0).all()
