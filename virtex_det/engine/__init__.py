"""Training and evaluation runs: the trainer, processes and run folders."""

from virtex_det.config import load_config
from virtex_det.engine.evaluation import evaluate, load_trained
from virtex_det.engine.processes import launch, with_one_screen_errors
from virtex_det.engine.run_folder import read_classes
from virtex_det.engine.startup import argument_parser, setup
from virtex_det.engine.trainer import Trainer
from virtex_det.engine.watchdog import watching_each_other

__all__ = [
    "Trainer",
    "argument_parser",
    "evaluate",
    "launch",
    "load_config",
    "load_trained",
    "read_classes",
    "setup",
    "watching_each_other",
    "with_one_screen_errors",
]
