"""A run that a signal ends saves, says so, and resumes as if it had not been interrupted."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from tests.engine.test_exact_resume import RETINANET, assert_same
from tests.processes import launch_processes
from virtex_det.engine import Trainer, with_one_screen_errors
from virtex_det.engine.progress import Progress
from virtex_det.signals import Stopped


class Send(HookBase):
    """Sends this process a signal in a step."""

    def __init__(self, number: int, iteration: int) -> None:
        self.number, self.iteration = number, iteration

    def before_step(self) -> None:
        if self.trainer.iter == self.iteration:
            os.kill(os.getpid(), self.number)


def train(cfg, *hooks: HookBase, resume: bool = False) -> None:
    seed_all_rng(None if resume else 3)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.register_hooks([*hooks])
    trainer.train()


def end_code(cfg, *hooks: HookBase) -> int:
    with pytest.raises(SystemExit) as stopped:
        with_one_screen_errors(train, cfg, *hooks)
    return stopped.value.code


@pytest.fixture
def long_cfg(pretraining_cfg):
    options = ("SOLVER.MAX_ITER", 8, "SOLVER.CHECKPOINT_PERIOD", 3, "MODEL.TEXTUAL.DROPOUT", 0.3)

    def make(*more):
        return pretraining_cfg(*options, *more)

    return make


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)],
)
def test_a_run_that_is_asked_to_end_saves_and_says_how_to_go_on(long_cfg, capfd, number, code):
    cfg = long_cfg()
    assert end_code(cfg, Send(number, 4)) == code
    assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == "model_0000004.pth"
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(
        f"interrupted by {signal.Signals(number).name}; 5 of 8 iterations are done"
    )
    assert "model_0000004.pth. To go on: python " in last and "--resume" in last


def test_a_run_that_was_asked_to_end_and_resumed_is_the_run_that_was_not(long_cfg, tmp_path):
    cfg = long_cfg("SEED", 3)
    train(cfg)
    shutil.move(cfg.OUTPUT_DIR, tmp_path / "whole")
    end_code(cfg, Send(signal.SIGTERM, 4))
    train(cfg, resume=True)
    assert_same(tmp_path / "whole", Path(cfg.OUTPUT_DIR))


def test_without_the_key_nothing_is_saved(long_cfg, capfd):
    cfg = long_cfg("SOLVER.CHECKPOINT_ON_SIGNAL", False)
    assert end_code(cfg, Send(signal.SIGTERM, 4)) == 143
    assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == "model_0000002.pth"
    assert "the last checkpoint is" in capfd.readouterr().err


def test_a_signal_ends_an_evaluation_at_once_and_what_was_trained_is_saved(
    detector_cfg, monkeypatch, tmp_path
):
    options = ("TEST.EVAL_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 100)
    cfg = detector_cfg(*options)
    train(cfg)
    shutil.move(cfg.OUTPUT_DIR, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop = classmethod(lambda *args: os.kill(os.getpid(), signal.SIGTERM) or 1 / 0)
        patch.setattr(Trainer, "test", stop)
        assert end_code(cfg) == 143
    assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == "model_0000001.pth"
    train(cfg, resume=True)
    assert_same(tmp_path / "whole", Path(cfg.OUTPUT_DIR))


@pytest.fixture
def send_in_precise_bn(monkeypatch):
    """Sends a SIGTERM within precise batch norm, once at each of the given steps."""

    def send(*steps: int) -> None:
        update = Progress.update

        def update_and_send(progress, done, *rest):
            update(progress, done, *rest)
            if progress.what == "precise batch norm" and done == 1:
                seen.append(1)
                if len(seen) in steps:
                    os.kill(os.getpid(), signal.SIGTERM)

        seen: list[int] = []
        monkeypatch.setattr(Progress, "update", update_and_send)

    return send


@pytest.mark.parametrize("architecture", [(), RETINANET], ids=["mask_rcnn", "retinanet"])
@pytest.mark.parametrize(("average", "saved"), [(1, "model_0000001"), (2, "model_0000003")])
def test_a_signal_ends_precise_batch_norm_which_the_resumed_run_computes_anew(
    detector_cfg, send_in_precise_bn, tmp_path, average, saved, architecture
):
    options = (
        "TEST.PRECISE_BN.ENABLED True TEST.PRECISE_BN.NUM_ITER 3 SOLVER.CHECKPOINT_PERIOD 2"
    ).split()
    cfg = detector_cfg(*options, *architecture)
    train(cfg)
    shutil.move(cfg.OUTPUT_DIR, tmp_path / "whole")
    send_in_precise_bn(average, average + 1)  # and in that of the run that goes on
    assert end_code(cfg) == 143
    assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == f"{saved}.pth"
    assert not (Path(cfg.OUTPUT_DIR) / "model_final.pth").exists()
    with pytest.raises(Stopped):
        train(cfg, resume=True)
    assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == f"{saved}.pth"
    train(cfg, resume=True)
    assert_same(tmp_path / "whole", Path(cfg.OUTPUT_DIR))
    assert_same(tmp_path / "whole", Path(cfg.OUTPUT_DIR), "model_0000001.pth")
    assert_same(tmp_path / "whole", Path(cfg.OUTPUT_DIR), "model_0000003.pth")


def test_a_second_ctrl_c_ends_at_once(long_cfg, monkeypatch):
    monkeypatch.setattr("virtex_det.signals._SAME", -1.0)
    cfg = long_cfg()
    assert end_code(cfg, Send(signal.SIGINT, 4), Send(signal.SIGINT, 4)) == 130
    assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == "model_0000002.pth"


def test_a_signal_while_a_run_is_loaded_ends_it_at_once(capfd):
    with pytest.raises(SystemExit) as stopped:
        with_one_screen_errors(os.kill, os.getpid(), signal.SIGTERM)
    assert stopped.value.code == 143
    assert capfd.readouterr().err == "\ninterrupted by SIGTERM; what was saved stays\n"


def test_handlers_are_put_back(long_cfg):
    before = signal.getsignal(signal.SIGTERM)
    end_code(long_cfg(), Send(signal.SIGTERM, 1))
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_is_ignored_as_by_nohup_stays_ignored(long_cfg):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        train(long_cfg(), Send(signal.SIGHUP, 1))
    finally:
        signal.signal(signal.SIGHUP, before)


def _train_and_send(cfg, rank: int) -> None:
    train(cfg, *([Send(signal.SIGTERM, 4)] if comm.get_rank() == rank else []))


@pytest.mark.slow
def test_a_signal_to_one_of_several_processes_ends_all_after_the_same_step(long_cfg, capfd):
    cfg = long_cfg("SOLVER.CHECKPOINT_PERIOD", 100)
    with pytest.raises(SystemExit) as stopped:
        launch_processes(_train_and_send, cfg, 1, processes=2)
    assert stopped.value.code == 143
    assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == "model_0000004.pth"
    printed = capfd.readouterr().err
    assert printed.count("To go on:") == 1 and "Traceback" not in printed


def _stop_in_the_evaluation_of_one(cfg) -> None:
    def test(*args):
        if comm.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        comm.synchronize()

    Trainer.test = classmethod(test)  # in this process alone
    train(cfg)


@pytest.mark.slow
def test_a_signal_to_one_of_several_processes_in_an_evaluation_loses_no_step(detector_cfg, capfd):
    cfg = detector_cfg("TEST.EVAL_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 100)
    with pytest.raises(SystemExit) as stopped:
        launch_processes(_stop_in_the_evaluation_of_one, cfg, processes=2)
    printed = capfd.readouterr().err
    assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == "model_0000001.pth"
    assert stopped.value.code == 143
    assert "Traceback" not in printed


def test_an_evaluation_that_fails_loses_no_step(detector_cfg, monkeypatch, tmp_path):
    cfg = detector_cfg("TEST.EVAL_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 100)
    train(cfg)
    shutil.move(cfg.OUTPUT_DIR, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Trainer, "test", classmethod(lambda *args: 1 / 0))
        train(cfg)
    assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == "model_0000001.pth"
    train(cfg, resume=True)
    assert_same(tmp_path / "whole", Path(cfg.OUTPUT_DIR))
