import sys
from pathlib import Path

import pytest

from virtex_det.engine.runs import Run, train_all
from virtex_det.errors import UserError


def make_run(folder: Path, *options: str, is_evaluated: bool = True) -> Run:
    return Run(folder, 4, Path("no_such_config.yaml"), options, is_evaluated)


def test_the_command_is_what_a_user_would_type(tmp_path):
    command = make_run(tmp_path / "run", "SEED", "3").command()
    assert command[0] == sys.executable and command[1].endswith("tools/train_net.py")
    assert command[2:5] == ["--resume", "--config-file", "no_such_config.yaml"]
    assert command[5:] == ["SEED", "3", "SOLVER.MAX_ITER", "4", "SOLVER.WARMUP_ITERS", "0"] + [
        "OUTPUT_DIR",
        str(tmp_path / "run"),
    ]


def test_an_evaluated_run_is_complete_with_weights_and_the_record_of_its_last_iteration(tmp_path, make_record):
    run = make_run(tmp_path)
    make_record(iteration=2).write(tmp_path)
    (tmp_path / "model_final.pth").touch()
    assert not run.is_complete()
    assert make_run(tmp_path, is_evaluated=False).is_complete()
    make_record(iteration=4).write(tmp_path)
    assert run.is_complete()


def test_a_run_without_weights_is_not_complete(tmp_path, make_record):
    make_record(iteration=4).write(tmp_path)
    assert not make_run(tmp_path).is_complete()


def test_what_is_complete_is_not_run_again(tmp_path):
    (tmp_path / "model_final.pth").touch()
    train_all([make_run(tmp_path, is_evaluated=False)], at_once=1)
    assert not (tmp_path / "stdout.txt").exists()


def test_a_run_that_fails_is_an_error_with_the_end_of_its_log(tmp_path):
    with pytest.raises(UserError, match=r"The run run failed(?s:.*)There is no config file no_such_config.yaml"):
        train_all([make_run(tmp_path / "run")], at_once=1)
