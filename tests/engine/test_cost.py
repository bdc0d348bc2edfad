"""A complete run says what it has cost, over all its parts and processes."""

import itertools
import json
import math
import multiprocessing
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm

from tests.engine.test_stopping import Send
from tests.processes import launch_processes
from virtex_det.benchmark.costs import read_cost
from virtex_det.engine import Trainer
from virtex_det.engine.cost import CostCounter
from virtex_det.signals import Stopped

OPTIONS = ("SOLVER.CHECKPOINT_PERIOD", 2, "DATASETS.TEST", "()")


def train(cfg, *, resume=False, signal_at=None) -> Path:
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    if signal_at is not None and comm.get_rank() == comm.get_world_size() - 1:
        trainer.register_hooks([Send(signal.SIGTERM, signal_at)])
    trainer.train()
    return Path(cfg.OUTPUT_DIR)


def of_seconds(each: float) -> SimpleNamespace:
    """Return a clock by which each step of this process takes so many CPU seconds."""
    ticks = itertools.count()
    return SimpleNamespace(process_time=lambda: each * next(ticks))


@pytest.fixture
def a_second_per_step(monkeypatch):
    monkeypatch.setattr("virtex_det.engine.cost.time", of_seconds(1.0))


def test_a_pretraining_says_what_it_has_cost(pretraining_cfg, a_second_per_step):
    cfg = pretraining_cfg(*OPTIONS, "INPUT.CAPTION.PER_IMAGE", 2)
    folder = train(cfg)
    assert cfg.SOLVER.MAX_ITER == 4
    content = json.loads((folder / "cost.json").read_text())
    assert content.pop("training_seconds") >= 0
    assert content == {
        "iterations": 4,
        "images": 4 * cfg.SOLVER.IMS_PER_BATCH,
        "captions_per_image": 2,
        "cpu_seconds": 4.0,
        "processes": 1,
    }


def test_a_detector_has_a_cost_without_captions(detector_cfg):
    cost = read_cost(train(detector_cfg(*OPTIONS)))
    assert cost.iterations == 4 and cost.captions_per_image is None and cost.cpu_seconds >= 0


def test_the_seconds_add_up_over_resumed_parts(pretraining_cfg, a_second_per_step):
    cfg = pretraining_cfg(*OPTIONS)
    folder = train(cfg)
    state = torch.load(folder / "model_0000001.pth", weights_only=True)["trainer"]
    assert state["cpu_seconds"] == 2
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    (folder / "cost.json").unlink()
    train(cfg, resume=True)
    assert read_cost(folder).cpu_seconds == 4


def test_a_checkpoint_that_does_not_tell_its_seconds_leaves_them_unknown(pretraining_cfg):
    cfg = pretraining_cfg(*OPTIONS)
    folder = train(cfg)
    content = torch.load(folder / "model_0000001.pth", weights_only=True)
    del content["trainer"]["cpu_seconds"], content["trainer"]["training_seconds"]
    torch.save(content, folder / "model_0000001.pth")
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    train(cfg, resume=True)
    cost = read_cost(folder)
    assert (cost.cpu_seconds, cost.training_seconds) == (None, None)
    assert cost.iterations == 4


def test_the_cost_is_written_before_the_final_weights(pretraining_cfg, monkeypatch):
    def fail(trainer, name, **more):
        raise OSError("the disk is full")

    monkeypatch.setattr("virtex_det.checkpoint.TransferCheckpointer.save", fail)
    cfg = pretraining_cfg("DATASETS.TEST", "()", "SOLVER.CHECKPOINT_PERIOD", 1000)
    with pytest.raises(OSError, match="the disk is full"):
        train(cfg)
    assert read_cost(cfg.OUTPUT_DIR).iterations == 4


def _burn(seconds: float, connection) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    connection.send("done")
    connection.recv()


def test_workers_count_and_other_processes_do_not(pretraining_cfg):
    counter, children = CostCounter(pretraining_cfg()), []
    context = multiprocessing.get_context("fork")

    def start(seconds):
        here, there = context.Pipe()
        child = context.Process(target=_burn, args=(seconds, there), daemon=True)
        child.start()
        children.append((child, here))
        assert here.recv() == "done"

    start(0.5)
    counter.before_train()
    start(0.2)
    counted = counter.cpu_seconds
    for child, connection in children:
        connection.send("end")
        child.join()
    assert 0.15 <= counted < 0.45


def test_workers_without_a_file_of_their_times_leave_the_seconds_unknown(
    pretraining_cfg, monkeypatch
):
    counter = CostCounter(pretraining_cfg())
    monkeypatch.setattr("virtex_det.engine.cost._children", lambda: {2**30})
    assert math.isnan(counter.cpu_seconds)


def _train_in_parts(cfg: CfgNode) -> None:
    from virtex_det.engine import cost

    # The first process takes 1 s per step, the second 10 s.
    cost.time = of_seconds(10.0 ** comm.get_rank())
    with pytest.raises(Stopped):
        train(cfg, signal_at=2)
    train(cfg, resume=True)


@pytest.mark.slow
def test_the_seconds_of_two_processes_are_added_also_after_a_signal(pretraining_cfg):
    cfg = pretraining_cfg(*OPTIONS, "SOLVER.IMS_PER_BATCH", 4)
    launch_processes(_train_in_parts, cfg, processes=2)
    folder = Path(cfg.OUTPUT_DIR)
    state = torch.load(folder / "model_0000002.pth", weights_only=True)["trainer"]
    assert state["cpu_seconds"] == 33
    cost = read_cost(folder)
    assert (cost.cpu_seconds, cost.processes, cost.images) == (44, 2, 16)
