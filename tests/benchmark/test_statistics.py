import pytest

from virtex_det.benchmark.statistics import by_arm, last_records, spread


def test_spread_is_mean_and_sample_deviation():
    found = spread([10.0, 12.0, 14.0])
    assert found.mean == 12.0
    assert found.deviation == pytest.approx(2.0)
    assert str(found) == "12.0 ± 2.0"


def test_one_run_has_no_spread():
    assert str(spread([10.0])) == "10.0"


def test_the_evaluation_with_the_most_training_counts(make_record):
    found = last_records([make_record(9.0, iteration=200), make_record(3.0, iteration=100)])
    assert [record.metrics["bbox"]["AP"] for record in found] == [9.0]


def test_runs_that_differ_in_seed_fraction_or_weights_are_kept_apart(make_record):
    runs = [make_record(seed=0), make_record(seed=1), make_record(fraction=0.25), make_record(init="virtex")]
    assert len(last_records(runs)) == 4


def test_arms_are_sorted_by_fraction_with_random_first(make_record):
    runs = [make_record(init="virtex"), make_record(fraction=0.25), make_record(seed=1), make_record()]
    assert list(by_arm(runs)) == [(0.1, "random init"), (0.1, "virtex"), (0.25, "random init")]
    assert len(by_arm(runs)[0.1, "random init"]) == 2
