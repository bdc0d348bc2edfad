"""Run folders with records of several evaluations."""

import dataclasses

import pytest

from virtex_det.benchmark.evaluated_run import EvaluatedRun


def test_a_history_is_of_the_training_that_ended_with_the_record(tmp_path, make_record):
    last = make_record(iteration=200)
    early = make_record(5.0, iteration=100)
    again = dataclasses.replace(early, metrics={"bbox": {"AP": 6.0}})
    others = [
        dataclasses.replace(early, config_sha256="f" * 64),
        dataclasses.replace(early, dataset="another"),
        dataclasses.replace(early, iteration=150, evaluated={"path": "other.pth"}),
    ]
    run = EvaluatedRun(tmp_path, last, [early, *others, again, last])
    assert run.history() == [again, last], "the later of two records of an iteration counts"


@pytest.mark.parametrize("change", [{"iteration": 100}, {"config_sha256": "f" * 64}])
def test_detections_belong_to_the_latest_evaluation_on_the_data(tmp_path, make_record, change):
    record = make_record(iteration=200)
    assert not EvaluatedRun(tmp_path, record, [record]).has_own_detections(), "there are none"
    file = EvaluatedRun(tmp_path, record).detections_file()
    file.parent.mkdir(parents=True)
    file.touch()
    other_data = dataclasses.replace(record, dataset="another", **change)
    other = dataclasses.replace(record, **change)
    assert EvaluatedRun(tmp_path, record, [other, record, other_data]).has_own_detections()
    assert not EvaluatedRun(tmp_path, record, [record, other]).has_own_detections()
