import dataclasses

import pytest

from tests.benchmark.matrices import compare
from virtex_det.benchmark.comparison import Comparison
from virtex_det.benchmark.rows import Reach, find_metrics, reaches, rows, share
from virtex_det.errors import UserError

BOX = ("bbox", "AP")


def test_a_row_has_mean_spread_seeds_and_the_test_against_the_baseline(make_record):
    comparison = compare(make_record, {("random", 0.1): (4.0, 6.0, 8.0), ("captions", 0.1): (10.0, 13.0, 13.0)})
    random, captions = rows(comparison)
    assert (captions.start, captions.fraction, captions.seeds) == ("captions", 0.1, 3)
    assert captions.spreads["Box AP"].mean == pytest.approx(12.0)
    assert captions.spreads["Box AP"].deviation == pytest.approx(3**0.5)
    assert captions.tests["Box AP"].difference == pytest.approx(6.0)
    assert captions.tests["Box AP"].p_value == pytest.approx(0.00917, abs=1e-4)  # t = 6 / (1 / sqrt(3)), 2 degrees
    assert random.tests["Box AP"] is None


def test_the_test_pairs_the_seeds_that_both_have(make_record):
    comparison = compare(make_record, {("random", 0.1): (4.0,), ("captions", 0.1): (10.0, 20.0)})
    test = rows(comparison)[1].tests["Box AP"]
    assert (test.difference, test.pairs) == (6.0, 1)


def test_cells_that_were_not_run_have_no_row(make_record):
    comparison = compare(make_record, {("random", 0.1): (4.0,), ("captions", 1.0): (10.0,)})
    assert [(row.start, row.fraction) for row in rows(comparison)] == [("random", 0.1), ("captions", 1.0)]


def test_a_metric_that_one_run_lacks_counts_zero_since_it_found_nothing(make_record):
    comparison = compare(make_record, {("random", 0.1): (None, 6.0)})
    assert rows(comparison)[0].spreads["Box AP"].mean == 3.0


def test_a_metric_that_every_run_lacks_is_not_defined(make_record):
    comparison = compare(make_record, {("random", 0.1): (4.0,), ("captions", 0.1): (5.0,)})
    small = {"Mask AP50": ("segm", "AP50")}
    assert all(row.spreads["Mask AP50"] is None and row.tests["Mask AP50"] is None for row in rows(comparison, small))


def test_metrics_are_named_by_task_and_name(make_record):
    comparison = compare(make_record, {("random", 0.1): (4.0,)})
    assert find_metrics(comparison) == {"Box AP": BOX, "Mask AP": ("segm", "AP")}
    assert find_metrics(comparison, ["bbox/AP50"]) == {"Box AP50": ("bbox", "AP50")}


def test_detectors_without_masks_are_shown_by_their_boxes(make_record):
    comparison = compare(make_record, {("random", 0.1): (4.0,)})
    boxes = {c: dataclasses.replace(r, metrics={"bbox": {"AP": 4.0}}) for c, r in comparison.records.items()}
    assert list(find_metrics(Comparison("", "", boxes))) == ["Box AP"]


def test_an_unknown_metric_is_answered_with_the_nearest(make_record):
    with pytest.raises(UserError, match="No record has a metric bbox/AP5.*bbox/AP50"):
        find_metrics(compare(make_record, {("random", 0.1): (4.0,)}), ["bbox/AP5"])


def test_where_a_start_reaches_the_baseline_is_interpolated_on_the_logarithmic_axis(make_record):
    curve = {("captions", 0.01): (4.0,), ("captions", 0.1): (8.0,), ("captions", 1.0): (20.0,)}
    goal, found = reaches(compare(make_record, {("random", 1.0): (6.0,)} | curve), "scenes-segm", BOX)
    assert goal == 6.0
    assert found["captions"].fraction == pytest.approx(10**-1.5)  # half way between 1 and 10 %
    assert str(found["captions"]) == "3.16 %"


def test_a_start_that_is_as_good_with_the_fewest_labels_has_a_bound(make_record):
    scores = {("random", 1.0): (6.0,), ("captions", 0.01): (7.0,), ("captions", 1.0): (9.0,)}
    _, found = reaches(compare(make_record, scores), "scenes-segm", BOX)
    assert found["captions"] == Reach(0.01, is_bound=True) and str(found["captions"]) == "at most 1 %"


def test_a_start_that_is_never_as_good_is_said_to_be_so(make_record):
    scores = {("random", 1.0): (6.0,), ("captions", 0.1): (5.0,), ("captions", 1.0): (5.9,)}
    _, found = reaches(compare(make_record, scores), "scenes-segm", BOX)
    assert str(found["captions"]) == "not reached"


@pytest.mark.parametrize("scores", [{("random", 0.1): (6.0,)}, {("random", 1.0): (0.0,)}, {("captions", 1.0): (6.0,)}])
def test_nothing_is_said_without_a_baseline_on_all_labels(make_record, scores):
    assert reaches(compare(make_record, scores), "scenes-segm", BOX) is None


def test_parts_of_the_labels_in_words():
    assert [share(fraction) for fraction in (0.005, 0.1, 1.0)] == ["0.5 %", "10 %", "100 %"]
