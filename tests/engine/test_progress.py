import logging
from types import SimpleNamespace

import pytest

from virtex_det.engine import progress as progress_module
from virtex_det.engine.progress import EvaluationBatches, FirstSteps, Progress


@pytest.fixture
def clock(monkeypatch, caplog):
    """A clock that stands still until it is moved."""
    caplog.set_level(logging.INFO)
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now.seconds)
    return now


def steps(hook, clock, seconds, begin, end, total):
    hook.trainer = SimpleNamespace(
        iter=begin,
        start_iter=begin,
        max_iter=total,
        storage=SimpleNamespace(latest=lambda: {"total_loss": (2.5, 0)}),
    )
    hook.before_train()
    for hook.trainer.iter in range(begin, end):
        clock.seconds += seconds
        hook.after_step()


def test_the_first_iteration_is_logged_with_the_time_that_is_left(clock, caplog):
    steps(FirstSteps(), clock, 2.0, 0, 1, 1000)
    assert caplog.messages == ["training: 1 of 1000 done, 2 s each, about 0:33:18 left, loss 2.5"]


def test_quick_iterations_have_no_more_lines_than_the_first(clock, caplog):
    steps(FirstSteps(), clock, 0.1, 0, 100, 1000)
    assert len(caplog.messages) == 1


def test_slow_iterations_have_a_line_as_time_passes_but_none_beside_detectron2s(clock, caplog):
    steps(FirstSteps(), clock, 7.0, 0, 41, 1000)
    done = [int(message.split()[1]) for message in caplog.messages]
    assert done == [1, 4, 7, 10, 13, 16, 19, 23, 26, 29, 32, 35, 38]


def test_a_resumed_run_counts_its_own_iterations(clock, caplog):
    steps(FirstSteps(), clock, 1.0, 500, 501, 1000)
    assert caplog.messages == ["training: 501 of 1000 done, 1 s each, about 0:08:19 left, loss 2.5"]


def test_work_that_is_done_at_once_is_not_logged(clock, caplog):
    progress = Progress("precise batch norm", 200)
    for done in range(200):
        clock.seconds += 0.01
        progress.update(done)
    assert not caplog.messages


def test_slow_first_batches_of_an_evaluation_are_logged_until_detectron2_does(clock, caplog):
    for _ in EvaluationBatches([0] * 30, "evaluation on val"):
        clock.seconds += 15.0
    assert caplog.messages[0] == "evaluation on val: 1 of 30 done, 15 s each, about 0:07:15 left"
    assert 3 <= len(caplog.messages) <= 10


def test_an_evaluations_loader_has_its_length():
    assert len(EvaluationBatches([1, 2, 3], "evaluation")) == 3
