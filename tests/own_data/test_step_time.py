import pytest

from virtex_det.own_data.step_time import in_words, time_steps


def test_an_epoch_is_as_many_steps_as_it_has_batches(detector_cfg):
    measured = time_steps(detector_cfg(), images=12, steps=2)
    assert measured.step > 0 and measured.epoch == pytest.approx(6 * measured.step)


def test_durations_are_in_the_unit_that_people_use():
    assert [in_words(seconds) for seconds in (12.4, 600, 7200)] == ["12 s", "10 min", "2.0 h"]
