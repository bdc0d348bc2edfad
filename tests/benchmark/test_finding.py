import dataclasses

import pytest

from tests.benchmark.matrices import compare, mixed
from virtex_det.benchmark.comparison import Comparison
from virtex_det.benchmark.finding import Finding, main_finding
from virtex_det.benchmark.statistics import summarize
from virtex_det.benchmark.tables import details_table

LEAD = {("random", 0.1): (10.0, 11.0, 12.0), ("best", 0.1): (14.0, 16.5, 19.0)}  # p 0.024


def finding(comparison: Comparison) -> Finding:
    return main_finding(comparison, summarize(comparison))


def sentence(make_record, scores: dict, **changes: str) -> str:
    comparison = compare(make_record, scores)
    for name, value in changes.items():
        object.__setattr__(comparison, name, value)
    return finding(comparison).sentence


def test_the_best_start_stands_beside_the_baseline_with_the_most_labels(make_record):
    found = finding(
        compare(
            make_record,
            {
                ("random", 0.1): (4.0, 6.0, 5.0),
                ("random", 0.5): (20.0, 22.0, 21.0),
                ("captions", 0.1): (10.0, 12.0, 11.0),
                ("captions", 0.5): (30.0, 33.0, 31.0),
            },
        )
    )
    assert found.sentence == (
        "With 50 % of the labels, captions reaches 31.3 ± 1.5 box AP, 10.3 more than random "
        "(3 seeds, p 0.001)."
    )
    assert found.starts == ("random", "captions")


def test_with_all_labels_it_says_how_few_would_have_been_enough(make_record):
    scores = {
        ("random", 1.0): (20.0, 20.0),
        ("captions", 0.1): (19.0, 21.0),
        ("captions", 1.0): (40.0, 42.0),
    }
    assert sentence(make_record, scores).endswith(
        "; at most 10 % of the labels are enough for it to match the 20.0 of random."
    )


def test_one_seed_may_be_chance(make_record):
    said = sentence(make_record, {("random", 0.1): (4.0,), ("captions", 0.1): (10.0,)})
    assert said == (
        "With 10 % of the labels, captions reaches 10.0 box AP, 6.0 more than random "
        "(1 seed, so this may be chance)."
    )


def test_a_lead_counts_less_the_more_rivals_there_are(make_record):
    """The same two starts, with p 0.024: clear as a pair, perhaps chance as the best of many."""
    others = {(f"start {number}", 0.1): (10.0, 11.0, 13.0) for number in range(4)}
    assert "(3 seeds, p 0.024)" in sentence(make_record, LEAD)
    assert "the best of 6 starts and" in sentence(make_record, LEAD | others)
    assert "p 0.12, so this may be chance" in sentence(make_record, LEAD | others)


def test_a_lead_is_clear_where_the_p_value_of_the_table_is(make_record):
    """Its p, 0.024, is the largest of three, so Holm leaves it; Bonferroni would say 0.072."""
    others = {("good", 0.1): (13.0, 14.0, 15.1), ("better", 0.1): (13.4, 14.4, 15.5)}
    comparison = compare(make_record, LEAD | others)
    summary = summarize(comparison)
    rows = details_table(comparison, summary, "bbox").rows
    assert {row[1].text: row[-1].text for row in rows}["best"] == "0.024"
    said = main_finding(comparison, summary).sentence
    assert "(3 seeds, p 0.024)" in said and "chance" not in said


def test_the_p_value_is_the_one_that_the_table_shows(make_record):
    """Two starts with a p-value: Holm doubles the smaller one, here 0.024."""
    comparison = compare(make_record, LEAD | {("good", 0.1): (10.0, 12.0, 13.0)})
    summary = summarize(comparison)
    rows = details_table(comparison, summary, "bbox").rows
    assert [row[-1].text for row in rows if row[1].text == "best"] == ["0.048"]
    assert "(3 seeds, p 0.048)" in main_finding(comparison, summary).sentence


def test_a_lead_that_is_perhaps_chance_in_the_table_is_so_in_the_sentence(make_record):
    """One rival and p 0.024, but three tests in the table: one for each fraction."""
    others = {("random", 0.01): (1.0, 1.0, 1.0), ("best", 0.01): (1.0, 2.0, 1.0)}
    others |= {("random", 0.05): (1.0, 1.0, 1.0), ("best", 0.05): (1.0, 2.0, 1.0)}
    assert "(3 seeds, p 0.024)" in sentence(make_record, LEAD)
    assert "p 0.072, so this may be chance" in sentence(make_record, LEAD | others)


def test_a_baseline_that_no_start_beats_leads(make_record):
    found = finding(
        compare(
            make_record,
            {("random", 0.1): (9.0, 9.0), ("a", 0.1): (5.0, 5.0), ("b", 0.1): (7.0, 7.0)},
        )
    )
    assert found.sentence == (
        "With 10 % of the labels, no start does better than random, which reaches 9.0 ± 0.0 "
        "box AP; b reaches 7.0 ± 0.0 (2 seeds)."
    )
    assert found.starts == ("random", "b")


def test_without_a_baseline_the_second_stands_beside_the_best(make_record):
    scores = {("a", 0.1): (5.0,), ("b", 0.1): (7.0,), ("c", 0.1): (1.0,)}
    said = sentence(make_record, scores, baseline="")
    assert said == (
        "With 10 % of the labels, b reaches 7.0 box AP, the best of 3 starts; a reaches 5.0 "
        "(1 seed)."
    )


@pytest.mark.parametrize("value", [0.0, None])
def test_a_matrix_in_which_nothing_is_found_says_so(make_record, value):
    said = sentence(make_record, {("random", 0.1): (value, 0.0), ("captions", 0.1): (value, 0.01)})
    assert said == (
        "With 10 % of the labels, box AP is 0.0 from every start: there is nothing to compare yet."
    )


def test_one_start_is_its_own_finding(make_record):
    found = finding(compare(make_record, {("random", 1.0): (20.0, 22.0)}))
    assert found.sentence == "With all labels, random reaches 21.0 ± 1.4 box AP (2 seeds)."
    assert found.starts == ("random",)


def test_labels_that_the_baseline_never_had_are_not_compared(make_record):
    scores = {("random", 0.1): (4.0,), ("captions", 0.1): (10.0,), ("captions", 0.5): (50.0,)}
    assert sentence(make_record, scores).startswith(
        "With 10 % of the labels, captions reaches 10.0"
    )


def test_seeds_that_no_two_starts_share_are_said_not_to_compare(make_record):
    comparison = compare(make_record, {("random", 0.1): (4.0,), ("captions", 0.1): (9.0, 10.0)})
    records = {
        cell: record
        for cell, record in comparison.records.items()
        if cell != ("captions", *cell[1:3], 0)
    }
    object.__setattr__(comparison, "records", records)
    assert "(no seed in common, so this may be chance)" in finding(comparison).sentence


def test_of_several_protocols_the_first_is_named(make_record):
    scores = {("random", 0.1): (4.0,), ("captions", 0.1): (10.0,)}
    assert finding(mixed(make_record, scores, ("a", "b"))).sentence.startswith("Under a: With 10 %")


def test_a_protocol_without_ap_before_it_is_passed_over(make_record):
    scores = {("random", 0.1): (4.0,), ("captions", 0.1): (10.0,)}
    records = mixed(make_record, scores, ("a", "b")).records
    for cell in [cell for cell in records if cell.protocol == "a"]:
        records[cell] = dataclasses.replace(records[cell], metrics={"svm": {"mAP": 50.0}})
    found = finding(Comparison("", "random", records))
    assert found.sentence.startswith("Under b: With 10 %")
