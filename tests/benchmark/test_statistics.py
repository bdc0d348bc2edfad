import dataclasses
import math

import pandas as pd
import pytest

from tests.benchmark.matrices import compare, mixed
from virtex_det.benchmark.comparison import Comparison, share
from virtex_det.benchmark.statistics import (
    detectable_difference,
    find_metrics,
    holm,
    paired_test,
    summarize,
)
from virtex_det.benchmark.tables import reached, title_of
from virtex_det.errors import UserError

BOX = ["bbox/AP"]


def test_the_tidy_table_has_a_row_per_run_and_metric(make_record):
    frame = compare(
        make_record, {("random", 0.1): (4.0, 6.0), ("captions", 0.1): (10.0, 13.0)}
    ).frame
    row = frame.set_index(["start", "seed", "metric"]).loc[("captions", 1, "segm/AP")]
    assert len(frame) == 4 * 4  # AP and AP50 of boxes and masks
    assert (row.value, row.protocol, row.fraction) == (6.5, "scenes-segm", 0.1)
    assert (row.recipe, row.dataset, row.seconds) == ("scenes-segm", "scenes_val", 100.0)


def test_the_tidy_table_is_in_the_order_of_the_matrix_and_its_fractions_ascend(make_record):
    scores = {("b", 1.0): (4.0,), ("b", 0.1): (4.0,), ("a", 0.1): (4.0,)}
    frame = mixed(make_record, scores, ("z", "y")).frame
    cells = (
        frame[["protocol", "start", "fraction"]]
        .drop_duplicates()
        .itertuples(index=False, name=None)
    )
    of_protocol = [("b", 0.1), ("b", 1.0), ("a", 0.1)]
    assert list(cells) == [(protocol, *rest) for protocol in ("z", "y") for rest in of_protocol]


def test_a_metric_that_one_run_lacks_counts_zero_since_it_found_nothing(make_record):
    comparison = compare(make_record, {("random", 0.1): (None, 6.0)})
    assert summarize(comparison, BOX)["mean"].item() == 3.0


def test_a_metric_that_is_not_in_one_runs_record_counts_zero_too(make_record):
    comparison = compare(make_record, {("random", 0.1): (4.0,), ("captions", 0.1): (5.0,)})
    records = dict(comparison.records)
    first = next(iter(records))
    records[first] = dataclasses.replace(records[first], metrics={})
    assert list(summarize(Comparison("", "random", records), BOX)["mean"]) == [0.0, 5.0]


def test_a_metric_that_every_run_lacks_is_not_defined(make_record):
    comparison = compare(make_record, {("random", 0.1): (4.0, 5.0), ("captions", 0.1): (5.0, 6.0)})
    summary = summarize(comparison, ["segm/AP50"])
    assert summary[["mean", "deviation", "difference", "p"]].isna().all(axis=None)
    assert not summary["best"].any() and list(summary["seeds"]) == [2, 2]


def test_a_metric_of_one_protocol_is_not_defined_under_another(make_record):
    both = mixed(make_record, {("random", 0.1): (4.0,)}, ("a", "b")).records
    boxes = {
        c: dataclasses.replace(r, metrics={"bbox": {"AP": 4.0}}) if c.protocol == "b" else r
        for c, r in both.items()
    }
    means = summarize(Comparison("", "", boxes, mix=True), ["segm/AP"])["mean"]
    assert means.loc["segm/AP", "a"].item() == 2.0 and math.isnan(means.loc["segm/AP", "b"].item())


def test_no_record_with_a_metric_leaves_nothing_to_summarize(make_record):
    comparison = compare(make_record, {("random", 0.1): (4.0,)})
    empty = {
        cell: dataclasses.replace(record, metrics={}) for cell, record in comparison.records.items()
    }
    comparison = Comparison("", "random", empty)
    assert (
        comparison.frame.empty
        and find_metrics(comparison) == []
        and summarize(comparison, []).empty
        and summarize(comparison).empty
    )


def test_a_row_has_mean_spread_seeds_and_the_test_against_the_baseline(make_record):
    comparison = compare(
        make_record, {("random", 0.1): (4.0, 6.0, 8.0), ("captions", 0.1): (10.0, 13.0, 13.0)}
    )
    random, captions = summarize(comparison, BOX).itertuples()
    assert captions.Index == ("bbox/AP", "scenes-segm", "captions", 0.1)
    assert (captions.seeds, captions.pairs, captions.recipe, captions.seconds) == (
        3,
        3,
        "scenes-segm",
        100.0,
    )
    assert captions.mean == pytest.approx(12.0) and captions.deviation == pytest.approx(3**0.5)
    assert captions.difference == pytest.approx(6.0)
    assert captions.p == pytest.approx(0.00917, abs=1e-4)  # t = 6 / (1 / sqrt(3)), 2 degrees
    assert math.isnan(random.difference) and random.pairs == 0
    assert (random.best, captions.best) == (False, True)


def test_one_seed_has_no_spread_and_no_p_value(make_record):
    row = summarize(
        compare(make_record, {("random", 0.1): (4.0,), ("captions", 0.1): (10.0,)}), BOX
    ).iloc[1]
    assert (row["mean"], row["seeds"], row["difference"], row["pairs"]) == (10.0, 1, 6.0, 1)
    assert math.isnan(row["deviation"]) and math.isnan(row["p"])


def test_the_test_pairs_the_seeds_that_both_have(make_record):
    comparison = compare(make_record, {("random", 0.1): (4.0,), ("captions", 0.1): (10.0, 20.0)})
    row = summarize(comparison, BOX).iloc[1]
    assert (row["difference"], row["pairs"]) == (6.0, 1)


def test_cells_that_were_not_run_have_no_row(make_record):
    summary = summarize(
        compare(make_record, {("random", 0.1): (4.0,), ("captions", 1.0): (10.0,)}), BOX
    )
    assert [row[2:] for row in summary.index] == [("random", 0.1), ("captions", 1.0)]
    assert not summary["best"].any()  # each is alone with its fraction


def test_starts_that_are_equal_are_both_the_best(make_record):
    summary = summarize(
        compare(make_record, {("random", 0.1): (4.0, 6.0), ("captions", 0.1): (6.0, 4.0)}), BOX
    )
    assert list(summary["best"]) == [True, True]


def test_metrics_are_named_by_task_and_name(make_record):
    comparison = compare(make_record, {("random", 0.1): (4.0,)})
    assert find_metrics(comparison) == ["bbox/AP", "segm/AP"]
    assert find_metrics(comparison, ["bbox/AP50", "bbox/AP50"]) == ["bbox/AP50"]


def test_a_category_may_have_a_slash_in_its_name(make_record):
    comparison = compare(make_record, {("random", 0.1): (4.0,)})
    named = {
        c: dataclasses.replace(r, metrics={"bbox": {"AP-a/b": 4.0}})
        for c, r in comparison.records.items()
    }
    assert find_metrics(Comparison("", "", named), ["bbox/AP-a/b"]) == ["bbox/AP-a/b"]
    assert title_of("bbox/AP-a/b") == "Box AP-a/b"


def test_detectors_without_masks_are_shown_by_their_boxes(make_record):
    comparison = compare(make_record, {("random", 0.1): (4.0,)})
    boxes = {
        c: dataclasses.replace(r, metrics={"bbox": {"AP": 4.0}})
        for c, r in comparison.records.items()
    }
    assert find_metrics(Comparison("", "", boxes)) == ["bbox/AP"]


def test_an_unknown_metric_is_answered_with_the_nearest(make_record):
    with pytest.raises(UserError, match="No record has a metric bbox/AP5.*bbox/AP50"):
        find_metrics(compare(make_record, {("random", 0.1): (4.0,)}), ["bbox/AP5"])


@pytest.mark.parametrize(
    ("curve", "said"),
    [
        (
            {0.01: 4.0, 0.1: 8.0, 1.0: 20.0},
            "captions: 3.16 %.",
        ),  # half way between 1 and 10 % on the logarithmic axis
        ({0.01: 7.0, 1.0: 9.0}, "captions: at most 1 %."),
        ({0.1: 5.0, 1.0: 5.9}, "captions: not reached."),
        (
            {0.01: 4.0, 0.1: 8.0, 0.5: 5.0, 1.0: 20.0},
            "captions: 3.16 %.",
        ),  # where it first gets there
    ],
    ids=["between two", "with the fewest", "never", "twice"],
)
def test_the_fraction_at_which_a_start_is_as_good_as_the_baseline_is_interpolated(
    make_record, curve, said
):
    scores = {("random", 1.0): (6.0,)} | {
        ("captions", fraction): (value,) for fraction, value in curve.items()
    }
    assert reached(means_of(compare(make_record, scores)), "random", "Box AP").endswith(said)


@pytest.mark.parametrize(
    "scores", [{("random", 0.1): (6.0,)}, {("random", 1.0): (0.0,)}, {("captions", 1.0): (6.0,)}]
)
def test_without_a_baseline_on_all_labels_there_is_no_sentence(make_record, scores):
    assert (
        reached(
            means_of(compare(make_record, {("third", 0.1): (1.0,)} | scores)), "random", "Box AP"
        )
        == ""
    )


def means_of(comparison: Comparison):
    """Return box AP by start and fraction."""
    return summarize(comparison, BOX)["mean"].loc["bbox/AP", "scenes-segm"]


def test_pairs_are_compared_by_students_t():
    # Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), so t = 2 sqrt(3) with 2 degrees of
    # freedom, for which p = 1 - t / sqrt(t^2 + 2).
    found = paired_test([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    assert found.difference == pytest.approx(2.0)
    assert found.p == pytest.approx(1 - (12 / 14) ** 0.5)
    assert found.pairs == 3


def test_the_pairing_counts_and_not_the_spread():
    ours, theirs = [11.0, 52.0, 91.5], [10.0, 51.1, 90.4]
    assert paired_test(ours, theirs).p < 0.01
    assert paired_test(ours, theirs[::-1]).p > 0.9


def test_two_pairs_have_a_p_value():
    assert paired_test([2.0, 4.0], [1.0, 1.0]).p == pytest.approx(0.295167, abs=1e-6)


@pytest.mark.parametrize(
    ("theirs", "difference", "pairs"), [([10.0, math.nan], 2.0, 1), ([math.nan] * 2, math.nan, 0)]
)
def test_seeds_that_the_other_start_lacks_are_no_pairs(theirs, difference, pairs):
    found = paired_test([12.0, 13.0], theirs)
    assert (found.difference, found.pairs) == (
        pytest.approx(difference, nan_ok=True),
        pairs,
    ) and math.isnan(found.p)


@pytest.mark.parametrize(
    "theirs", [[10.0, 11.0, 13.0], [9.9, 10.9, 12.9]], ids=["zero", "equal but for rounding"]
)
def test_differences_that_are_all_the_same_have_no_p_value(theirs):
    found = paired_test([10.0, 11.0, 13.0], theirs)
    assert math.isnan(found.p) and found.pairs == 3


def test_the_interval_is_students():
    # t(0.975, 2 degrees) = 4.302653, standard error 1 / sqrt(3)
    found = paired_test([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    half = 4.302653 / 3**0.5
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), abs=1e-5)
    assert found.difference_sd == pytest.approx(1.0)


def test_holm_multiplies_by_the_tests_left_and_keeps_the_order():
    p = pd.Series([0.03, 0.01, math.nan, 0.02, 0.9], index=list("abcde"))
    corrected = holm(p)
    assert list(corrected.index) == list(p.index)
    # 0.01 x 4; 0.02 x 3; 0.03 x 2 = 0.06, not below the one before; 0.9 x 1
    assert corrected.drop("c").to_list() == pytest.approx([0.06, 0.04, 0.06, 0.9])
    assert math.isnan(corrected["c"]), "where there was no test there is none to correct for"


def test_corrected_p_values_end_at_one():
    assert holm(pd.Series([0.6, 0.7])).to_list() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("pairs", "tests", "expected"),
    # by G*Power's definition: effect sizes of a two-sided paired t-test with 80 % power
    [(10, 1, 0.9958), (20, 1, 0.6604), (5, 1, 1.6822)],
)
def test_a_detectable_difference_has_80_percent_power(pairs, tests, expected):
    row = {"p": 0.5, "pairs": pairs, "difference_sd": 2.0}
    found = detectable_difference(pd.DataFrame([row] * tests), tests)
    assert found == pytest.approx(2 * expected, rel=2e-3)


def test_more_tests_show_only_greater_differences():
    one = pd.DataFrame([{"p": 0.5, "pairs": 3, "difference_sd": 1.0}])
    assert detectable_difference(one, 40) > 5 * detectable_difference(one, 1)
    assert math.isnan(detectable_difference(one.assign(p=math.nan), 1))


def test_values_without_a_partner_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        paired_test([1.0, 2.0], [1.0])


def test_parts_of_the_labels_in_words():
    assert [share(fraction) for fraction in (0.005, 0.1, 1.0)] == ["0.5 %", "10 %", "100 %"]
