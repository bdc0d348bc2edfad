"""How long an epoch of a config takes on this machine, from a few steps of its training."""

import tempfile
import time
from statistics import median
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from tqdm import tqdm

from virtex_det.config import override
from virtex_det.data import build_train_loader
from virtex_det.data.seeding import seeded
from virtex_det.modeling import build_model
from virtex_det.solver import build_optimizer

_STEPS = 4  # that are timed, after one that is not


class StepTime(NamedTuple):
    """Seconds of one step and of one epoch of a training."""

    step: float
    epoch: float


def time_steps(cfg: CfgNode, images: int, steps: int = _STEPS) -> StepTime:
    """Time some training steps from random weights, with the config's own data.

    Args:
        cfg: a detector's.
        images: of an epoch.
        steps: number of timed steps; one more comes before them.
    """
    with tempfile.TemporaryDirectory() as folder, seeded(0, "step time"), EventStorage():
        cfg = override(cfg, {"OUTPUT_DIR": folder, "DATALOADER.NUM_WORKERS": 0})
        model = build_model(cfg).train()
        optimizer = build_optimizer(cfg, model)
        batches = iter(build_train_loader(cfg))
        seconds = []
        for _ in tqdm(
            range(steps + 1), desc="timing steps", leave=False, unit="step", disable=None
        ):
            started = time.perf_counter()
            loss = sum(model(next(batches)).values())
            optimizer.zero_grad()
            loss.backward()
            if cfg.MODEL.DEVICE.startswith("cuda"):
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    step = median(seconds[1:])
    return StepTime(step, step * images / cfg.SOLVER.IMS_PER_BATCH)


def in_words(seconds: float) -> str:
    """Return a duration for people, such as "40 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
