import pytest

from virtex_det.benchmark.statistics import paired_test, spread


def test_spread_is_mean_and_sample_deviation():
    found = spread([10.0, 12.0, 14.0])
    assert found.mean == 12.0
    assert found.deviation == pytest.approx(2.0)
    assert str(found) == "12.0 ± 2.0"


def test_one_run_has_no_spread():
    assert str(spread([10.0])) == "10.0"


def test_pairs_are_compared_by_students_t():
    # Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), so t = 2 sqrt(3) with 2 degrees of freedom, for which
    # p = 1 - t / sqrt(t^2 + 2).
    found = paired_test([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    assert found.difference == pytest.approx(2.0)
    assert found.p_value == pytest.approx(1 - (12 / 14) ** 0.5)
    assert found.pairs == 3


def test_the_pairing_counts_and_not_the_spread():
    ours, theirs = [11.0, 52.0, 91.5], [10.0, 51.1, 90.4]
    assert paired_test(ours, theirs).p_value < 0.01
    assert paired_test(ours, theirs[::-1]).p_value > 0.9


def test_two_pairs_have_a_p_value():
    assert paired_test([2.0, 4.0], [1.0, 1.0]).p_value == pytest.approx(0.295167, abs=1e-6)


def test_one_pair_has_a_difference_and_no_p_value():
    assert paired_test([12.0], [10.0]) == (2.0, None, 1)


@pytest.mark.parametrize("theirs", [[10.0, 11.0, 13.0], [9.9, 10.9, 12.9]], ids=["zero", "equal but for rounding"])
def test_differences_that_are_all_the_same_have_no_p_value(theirs):
    found = paired_test([10.0, 11.0, 13.0], theirs)
    assert (found.p_value, found.pairs) == (None, 3)


def test_values_without_a_partner_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        paired_test([1.0, 2.0], [1.0])
