import numpy as np
import pytest
import torch

from virtex_det.inference.agreement import Bound, Detections, Rules, compare

RULES = Rules(score=0.05, iou=0.5, number=100)
BOUND = Bound()
BOXES = np.array([[0, 0, 20, 20], [50, 50, 80, 90], [50, 0, 70, 30]], dtype=np.float32)
SCORES = np.array([0.9, 0.6, 0.3], dtype=np.float32)


def detections(boxes=BOXES, scores=SCORES, classes=(0, 1, 0), masks=None):
    boxes, scores = np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
    return Detections(boxes, scores, np.array(classes), masks)


def difference(found, expected=detections()):  # noqa: B008  (never changed)
    return compare(expected, found, RULES, BOUND)


def without_last(**changes):
    return detections(BOXES[:2], SCORES[:2], (0, 1), **changes)


def test_equal_detections_differ_by_nothing_in_any_order():
    order = [2, 0, 1]
    same = difference(detections(BOXES[order], SCORES[order], (0, 0, 1)))
    assert same == (3, 0.0, 0.0, None, 0, 0) and same.within(BOUND)


def test_what_differs_is_measured():
    masks = np.zeros((3, 2, 2), np.float32)
    expected = detections(masks=masks)
    moved = BOXES + np.float32(0.01) * (np.arange(4) == 3)
    found = difference(detections(moved, SCORES - 2e-3, masks=masks + np.float32(0.25)), expected)
    assert found.objects == 3 and found.box == pytest.approx(0.01, rel=1e-3)
    assert (found.score, found.mask) == pytest.approx((2e-3, 0.25), rel=1e-3)
    assert not found.within(BOUND)
    assert found.within(Bound(0.02, 0.01, 0.3))
    assert not found.within(Bound(0.009, 0.01, 0.3)) and not found.within(Bound(0.02, 0.01, 0.2))


@pytest.mark.parametrize("changed", ["class", "place", "missing"])
def test_an_object_that_only_one_has_is_never_rounding(changed):
    found = {
        "class": detections(classes=(0, 1, 1)),
        "place": detections(BOXES + np.array([[0], [0], [5]], np.float32)),
        "missing": without_last(),
    }[changed]
    both = difference(found)
    assert both.objects == 2 and both.unexplained == (1 if changed == "missing" else 2)
    assert not both.within(BOUND)
    reverse = compare(found, detections(), RULES, BOUND)
    assert reverse.unexplained == both.unexplained


def test_a_score_at_the_threshold_may_fall_either_way():
    scores = np.array([0.9, 0.6, 0.0501], np.float32)
    found = difference(without_last(), detections(scores=scores))
    assert (found.ties, found.unexplained) == (1, 0) and found.within(BOUND)


def test_the_last_of_a_full_list_may_be_another():
    boxes = [*BOXES, [0, 60, 20, 90], [80, 0, 99, 20]]
    scores = [0.9, 0.6, 0.3, 0.2, 0.2001]
    one = detections(boxes[:4], scores[:4], (0, 1, 0, 2))
    other = detections([*boxes[:3], boxes[4]], [*scores[:3], scores[4]], (0, 1, 0, 2))
    full = compare(one, other, RULES._replace(number=4), BOUND)
    assert (full.objects, full.ties, full.unexplained) == (3, 2, 0)
    assert compare(one, other, RULES, BOUND).unexplained == 2


@pytest.mark.parametrize(("height", "tie"), [(10.05, True), (15, False)])
def test_an_overlap_at_the_threshold_may_suppress_or_not(height, tie):
    boxes = [*BOXES, [0, 0, 20, height]]  # of the first, 0.5025 and 0.75
    expected = detections(boxes, [*SCORES, 0.25], (0, 1, 0, 0))
    found = difference(detections(), expected)
    assert (found.ties, found.unexplained) == (int(tie), int(not tie))


def test_no_detections_on_either_side():
    nothing = detections(np.zeros((0, 4)), [], np.zeros(0, np.int64))
    assert difference(nothing, nothing).within(BOUND)
    assert difference(nothing).unexplained == 3


def test_the_padding_of_an_exported_model_is_left_out():
    boxes, scores = torch.zeros(2, 5, 4), torch.zeros(2, 5)
    classes = torch.tensor([[3, -1, -1, -1, -1], [-1] * 5])
    one = Detections.of_outputs((boxes, scores, classes), 0)
    assert len(one.scores) == 1 and one.classes.tolist() == [3] and one.masks is None
    assert not len(Detections.of_outputs((boxes, scores, classes), 1).scores)
