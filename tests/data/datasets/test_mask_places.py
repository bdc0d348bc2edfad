import logging

import pytest

from virtex_det.data.datasets.mask_places import check_mask_places
from virtex_det.errors import UserError

SQUARE = [[20, 30, 40, 30, 40, 50, 20, 50]]
BOX = [20, 30, 40, 50]
FRACTIONS = [[0.2, 0.3, 0.4, 0.3, 0.4, 0.5]]
ELSEWHERE = [[200, 300, 400, 300, 400, 500]]


def check(masks, boxes):
    check_mask_places(masks, boxes, lambda place: f"annotation {place}", "file.json")


@pytest.mark.parametrize(
    ("mask", "box", "message"),
    [
        (FRACTIONS, BOX, "look like fractions: multiply"),
        (FRACTIONS, [0, 0, 40, 50], "look like fractions: multiply"),  # at the image's corner
        (ELSEWHERE, BOX, "in pixels of the same image"),
    ],
)
def test_polygons_away_from_their_boxes_are_refused_with_the_first(mask, box, message):
    with pytest.raises(
        UserError, match=f"(?s)2 of 3 checked masks .*The first: annotation 1.*{message}"
    ):
        check([SQUARE, mask, mask], [BOX, box, box])


def test_a_few_are_counted(caplog):
    with caplog.at_level(logging.WARNING, "virtex_det"):
        check([SQUARE, SQUARE, ELSEWHERE], [BOX] * 3)
    assert "file.json: 1 of 3 checked masks lie away from their boxes" in caplog.text


def test_several_polygons_of_an_object_count_together_and_rounding_is_allowed(caplog):
    check([[*ELSEWHERE, *SQUARE]], [BOX])
    check([[[41.9, 30, 45, 30, 45, 50]]], [BOX])
    check([FRACTIONS], [[0, 0, 1, 1]])  # an object as small as a pixel
    check([], [])
    assert not caplog.text


def test_of_many_objects_those_at_even_distances_are_checked_and_named_by_their_place():
    masks = [SQUARE] * 20_000 + [ELSEWHERE] * 21_000  # every third is checked
    with pytest.raises(UserError, match=r"7000 of 13667 checked .*\nThe first: annotation 20001 "):
        check(masks, [BOX] * len(masks))
