"""Evaluation without training."""

import time
from typing import Any

from detectron2.config import CfgNode

from virtex_det.checkpoint import TransferCheckpointer
from virtex_det.engine.results import write_records
from virtex_det.engine.trainer import Trainer
from virtex_det.errors import UserError


def evaluate(cfg: CfgNode, resume: bool = False) -> dict[str, Any]:
    """Evaluate a trained detector on ``DATASETS.TEST``; needs no training data and no optimizer.

    In the folder of a training run, that run's config and load report stay as they are; only a record is added.

    Args:
        cfg: the full config. ``MODEL.WEIGHTS`` names a whole detector.
        resume: evaluate the last checkpoint of ``OUTPUT_DIR`` instead.

    Returns:
        Metrics as Detectron2 nests them; by dataset when there are several.

    Raises:
        UserError: when the weights leave any part of the model at random, or when there is nothing to evaluate.
    """
    if not cfg.DATASETS.TEST:
        raise UserError("DATASETS.TEST is empty: there is nothing to evaluate. Name a dataset, e.g. coco_2017_val.")
    started = time.monotonic()
    model = Trainer.build_model(cfg)
    run = TransferCheckpointer(model, cfg.OUTPUT_DIR, cfg=cfg)
    weights = run.get_checkpoint_file() if resume else cfg.MODEL.WEIGHTS
    if not weights:
        wanted = f"{cfg.OUTPUT_DIR} holds no checkpoint" if resume else "MODEL.WEIGHTS is empty"
        raise UserError(f"{wanted}: --eval-only needs a trained detector. Set MODEL.WEIGHTS to its model_final.pth.")
    report_folder = "" if run.has_checkpoint() else cfg.OUTPUT_DIR
    checkpointer = TransferCheckpointer(model, report_folder, cfg=cfg, require="model")
    rest = checkpointer.load(weights)
    results = Trainer.test(cfg, model)
    seconds = time.monotonic() - started
    done = rest["iteration"] + 1 if "iteration" in rest else None  # the file names the last iteration, from 0
    write_records(cfg, results, iteration=done, wall_seconds=seconds, evaluated=checkpointer.report)
    return results
