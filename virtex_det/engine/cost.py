"""Counts what training costs, and writes it into the run folder."""

import math
import multiprocessing
import os
import time
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm

from virtex_det.benchmark.costs import RunCost
from virtex_det.config.roles import reads_tokenizer


class CostCounter(HookBase):
    """Counts the CPU seconds of all processes, and writes the cost of a complete run.

    What counts: all threads of each process during training steps, and each worker of its training
    loader from the worker's start on. What does not: evaluations, precise batch norm, checkpoints,
    and the batches that workers had prepared for a part of the run that a kill ended.

    It must be the first hook: a checkpoint holds the count, and the cost is written before the
    final weights, so that no complete run lacks it.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: of the run.
        """
        self.cfg = cfg
        self.earlier = 0.0  # seconds of all processes, in earlier parts of the run
        self.steps = 0.0  # seconds of this process in steps
        self.others = 0.0  # seconds of the other processes, when last asked
        self.began = 0.0
        self.strangers: set[int] = set()

    @property
    def cpu_seconds(self) -> float:
        """Seconds of all processes over all parts of the run; NaN if unknown.

        Those of other processes are as of the last ``add_up``.
        """
        return self.earlier + self._own() + self.others

    def resume(self, cpu_seconds: float) -> None:
        """Go on counting.

        Args:
            cpu_seconds: of the run's earlier parts; NaN if unknown.
        """
        self.earlier, self.steps, self.others = cpu_seconds, 0.0, 0.0

    def add_up(self) -> None:
        """Ask the other processes for their seconds; a collective call."""
        of_all = comm.all_gather(self._own())
        self.others = sum(of_all) - of_all[comm.get_rank()]

    def before_train(self) -> None:
        """Note the child processes that are not workers of this training."""
        self.strangers = _children()

    def before_step(self) -> None:
        self.began = time.process_time()

    def after_step(self) -> None:
        self.steps += time.process_time() - self.began
        trainer = self.trainer
        done, period = trainer.iter + 1, self.cfg.SOLVER.CHECKPOINT_PERIOD
        is_last = done == trainer.max_iter
        if is_last or (period > 0 and done % period == 0):
            self.add_up()
        if is_last and comm.is_main_process():
            self._write(done, trainer.training_seconds)

    def _own(self) -> float:
        workers = _children() - self.strangers
        return self.steps + sum(map(_seconds_of, workers))

    def _write(self, iterations: int, training_seconds: float) -> None:
        cfg = self.cfg
        RunCost(
            iterations=iterations,
            images=iterations * cfg.SOLVER.IMS_PER_BATCH,
            captions_per_image=cfg.INPUT.CAPTION.PER_IMAGE if reads_tokenizer(cfg) else None,
            training_seconds=_tenths(training_seconds),
            cpu_seconds=_tenths(self.cpu_seconds),
            processes=comm.get_world_size(),
        ).write(cfg.OUTPUT_DIR)


def _children() -> set[int]:
    """Return the ids of the living child processes that this process works with."""
    return {child.pid for child in multiprocessing.active_children() if child.pid}


def _seconds_of(process: int) -> float:
    """Return the CPU seconds of a process, NaN where the system does not tell them by a file."""
    try:
        words = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return math.nan
    user, system = words[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _tenths(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(seconds, 1)
