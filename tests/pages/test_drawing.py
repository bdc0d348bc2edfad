import numpy as np
import pytest

from virtex_det.pages.drawing import Mark, box_contour, draw_marks, draw_remark, mask_contours

GREY = np.full((200, 300, 3), 120, np.uint8)
RED, BLUE = (255, 0, 0), (0, 0, 255)


def changed(picture: np.ndarray) -> np.ndarray:
    """Return where a picture is another than the grey one. # shape: (H, W), bool"""
    return (picture != GREY).any(axis=2)


def covered_by(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    """Return how many pixels are exactly of a colour."""
    return int((picture == colour).all(axis=2).sum())


def test_inside_an_outline_no_colour_changes():
    picture = draw_marks(GREY, [Mark([box_contour((50, 50, 250, 150))], "", RED)], 16)
    assert not changed(picture)[56:145, 56:245].any() and changed(picture)[50, 60:240].all()
    assert (GREY == 120).all()


def test_an_outline_has_a_dark_edge_that_shows_on_its_own_colour():
    ground = np.full_like(GREY, 255)
    picture = draw_marks(ground, [Mark([box_contour((50, 50, 250, 150))], "", (255, 255, 255))], 16)
    assert picture[45:56, 150].max(axis=1).min() < 130


def test_dashes_leave_gaps_and_a_solid_line_leaves_none():
    box = [box_contour((50, 50, 250, 150))]
    solid, dashed, dotted = (
        draw_marks(GREY, [Mark(box, "", RED, dash)], 16)[50, 60:240, 0] > 180
        for dash in (None, (5, 3), (0.5, 2.5))
    )
    assert solid.all() and 0 < dashed.sum() < 180 and 0 < dotted.sum() < 180
    assert np.diff(dotted.astype(int)).clip(0).sum() > np.diff(dashed.astype(int)).clip(0).sum() > 3


def test_a_hole_in_a_mask_is_outlined_too():
    ring = np.zeros((200, 300), np.uint8)
    ring[20:180, 20:180] = 1
    ring[80:120, 80:120] = 0
    assert len(mask_contours(ring, (200, 300))) == 2
    assert mask_contours(np.zeros((4, 4), np.uint8), (200, 300)) == []


def test_of_labels_that_would_cover_each_other_the_first_stays():
    same = [box_contour((140, 90, 160, 110))]
    many = [Mark(same, "first", RED), *(Mark(same, "another one", BLUE) for _ in range(30))]
    alone = draw_marks(GREY, many[:1], 16)
    picture = draw_marks(GREY, many, 16)
    assert covered_by(picture, RED) > 0.6 * covered_by(alone, RED) > 0
    assert covered_by(picture, BLUE) < 0.2 * 200 * 300


def test_labels_stay_in_the_picture_and_a_long_one_loses_its_middle():
    corners = [box_contour(box) for box in ((0, 0, 5, 5), (295, 195, 299, 199))]
    picture = draw_marks(GREY, [Mark([corner], "x" * 500, RED) for corner in corners], 16)
    assert picture.shape == GREY.shape and covered_by(picture, RED) > 0


def test_a_label_without_a_place_takes_no_room_from_the_others():
    corner, elsewhere = [box_contour((0, 0, 2, 2))], [box_contour((150, 100, 200, 150))]
    crowd = [Mark(corner, "first", RED)] + [Mark(corner, "none of these", RED)] * 50
    marks = [*crowd, Mark(elsewhere, "x", BLUE)]
    alone = draw_marks(GREY, marks[-1:], 16)
    assert covered_by(draw_marks(GREY, marks, 16), BLUE) == covered_by(alone, BLUE) > 0


def test_a_very_long_label_keeps_its_ends():
    box = [box_contour((50, 50, 250, 150))]
    ends = [Mark(box, f"{end}{'-' * 20_000}{end}", RED) for end in ("a", "b")]
    pictures = [draw_marks(GREY, [mark], 16) for mark in ends]
    places = np.nonzero((pictures[0] != pictures[1]).any(axis=2))[1]
    assert places.min() < 20 and places.max() > 270


@pytest.mark.parametrize("text", ["", "\x1b[2J", "\ud800", "星"])
def test_labels_of_any_text_are_drawn(text):
    draw_marks(GREY, [Mark([box_contour((50, 50, 250, 150))], text, RED)], 16)


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 1)])
def test_a_tiny_picture_is_drawn(size):
    pixels = np.zeros((*size, 3), np.uint8)
    assert (
        draw_marks(pixels, [Mark([box_contour((0, 0, 1, 1))], "dot", RED)], 16).shape
        == pixels.shape
    )
    assert draw_remark(pixels, "nothing", 16).shape == pixels.shape


def test_a_remark_stands_in_the_lower_left_corner():
    found = changed(draw_remark(GREY, "nothing above 0.5", 16))
    assert found[-1, 0] and not found[:150].any() and not found[:, 250:].any()
