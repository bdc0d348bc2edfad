import pytest

from tests.benchmark.example_comparison import square
from virtex_det.benchmark.matching import Verdict, judge

SIZE = (32, 32)
COCO_IMAGE: dict = {}


def verdicts(detections: list, labelled: list, image: dict = COCO_IMAGE) -> list[Verdict]:
    return [verdict for _, verdict in judge(detections, labelled, image, SIZE)]


def box(x: float, y: float, side: float, **more: object) -> dict:
    return {"category_id": 1, "bbox": [x, y, side, side], "score": 0.9} | more


def test_a_detection_of_the_same_class_and_place_is_found():
    assert verdicts([square(score=0.9)], [square()]) == [Verdict.FOUND]


def test_another_class_is_a_false_alarm_and_the_object_is_missed():
    assert verdicts([square(score=0.9, category_id=2)], [square()]) == [
        Verdict.FALSE_ALARM,
        Verdict.MISSED,
    ]


def test_a_second_detection_of_one_object_is_a_false_alarm_and_the_surer_one_is_right():
    unsure, sure = box(0, 0, 16, score=0.6), box(2, 2, 16, score=0.8)
    judged = judge([unsure, sure], [box(0, 0, 16)], COCO_IMAGE, SIZE)
    assert [(found["score"], verdict) for found, verdict in judged] == [
        (0.8, Verdict.FOUND),
        (0.6, Verdict.FALSE_ALARM),
    ]


@pytest.mark.parametrize(("side", "verdict"), [(16, Verdict.FOUND), (11, Verdict.FALSE_ALARM)])
def test_half_of_the_union_must_be_common(side, verdict):
    """16 x 16 and 11 x 11 have 121 of 256 pixels in common."""
    assert verdicts([box(0, 0, side)], [box(0, 0, 16)])[0] == verdict


def test_masks_count_before_boxes():
    apart = square(score=0.9, bbox=[0, 0, 1, 1])
    assert verdicts([apart], [square()]) == [Verdict.FOUND]


def test_nothing_found_misses_everything_and_nothing_labelled_makes_false_alarms():
    assert verdicts([], [square(), square()]) == [Verdict.MISSED] * 2
    assert verdicts([square(score=0.9)], []) == [Verdict.FALSE_ALARM]
    assert verdicts([], []) == []


def test_in_a_crowd_nothing_is_judged_and_a_crowd_is_not_missed():
    crowd = box(0, 0, 30, iscrowd=1)
    assert verdicts([box(4, 4, 8), box(12, 12, 8)], [crowd]) == [Verdict.UNJUDGED] * 2
    assert verdicts([], [crowd]) == []


@pytest.mark.parametrize(
    ("image", "verdict"),
    [
        ({"neg_category_ids": [1], "not_exhaustive_category_ids": []}, Verdict.FALSE_ALARM),
        ({"neg_category_ids": [], "not_exhaustive_category_ids": []}, Verdict.UNJUDGED),
        ({"neg_category_ids": [1], "not_exhaustive_category_ids": [1]}, Verdict.UNJUDGED),
    ],
    ids=["verified absent", "not looked for", "not all labelled"],
)
def test_lvis_judges_a_class_only_where_it_was_looked_for(image, verdict):
    assert verdicts([box(0, 0, 16)], [], image) == [verdict]
