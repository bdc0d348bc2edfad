"""Evaluation without training."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from torch import nn

from virtex_det.checkpoint import LoadReport, TransferCheckpointer
from virtex_det.checkpoint.last import find_last
from virtex_det.data.following import follow_data
from virtex_det.engine.explain import building
from virtex_det.engine.origin import schedule_departures
from virtex_det.engine.preflight import check_evaluation
from virtex_det.engine.results import write_records
from virtex_det.engine.run_folder import other_model_keys
from virtex_det.engine.trainer import Trainer
from virtex_det.engine.training_state import check_training_state
from virtex_det.errors import UserError
from virtex_det.plugins import warn_of_changed

logger = logging.getLogger(__name__)


def evaluate(cfg: CfgNode, resume: bool = False) -> dict[str, Any]:
    """Evaluate a trained model on ``DATASETS.TEST``, without training data and optimizer.

    In the folder of a training run, its config and load report stay; only a record is added.

    Args:
        cfg: the full config. ``MODEL.WEIGHTS`` names a file that fills the whole model.
        resume: evaluate the last checkpoint of ``OUTPUT_DIR`` instead.

    Returns:
        Metrics as Detectron2 nests them; by dataset when there are several.

    Raises:
        UserError: the weights leave a part of the model at random init, or there is nothing to
            evaluate.
    """
    if not cfg.DATASETS.TEST:
        raise UserError(
            "DATASETS.TEST is empty: there is nothing to evaluate.\n"
            "Name a data set, such as coco_2017_val."
        )
    started = time.monotonic()
    with building("data", cfg, "DATASETS.TEST"):
        cfg = follow_data(cfg, trains=False)
    last = find_last(cfg.OUTPUT_DIR)
    weights = last if resume else cfg.MODEL.WEIGHTS
    if not weights:
        found = f"{cfg.OUTPUT_DIR} holds no checkpoint" if resume else "MODEL.WEIGHTS is empty"
        raise UserError(
            f"{found}: --eval-only needs a trained model.\n"
            "Set MODEL.WEIGHTS to its model_final.pth."
        )
    with building("data", cfg, "DATASETS.TEST", "DATALOADER.MAPPER"):
        check_evaluation(cfg, weights)
    model, report, rest = load_trained(cfg, weights, report_folder="" if last else cfg.OUTPUT_DIR)
    trainer = _training_state(rest, weights)
    results = Trainer.test(cfg, model)
    seconds = time.monotonic() - started
    # The file names the last iteration, counted from 0.
    done = rest["iteration"] + 1 if "iteration" in rest else None
    write_records(
        cfg,
        results,
        iteration=done,
        wall_seconds=seconds,
        training_seconds=trainer.get("training_seconds"),
        evaluated=report,
        departures=schedule_departures(trainer.get("schedule_changes", ())),
        origin=trainer.get("origin"),
    )
    return results


def _training_state(rest: Mapping[str, Any], weights: str) -> Mapping[str, Any]:
    """Return what a file says about its model's training; {} if it says nothing."""
    try:
        check_training_state({"iteration": rest.get("iteration", 0)})
        return check_training_state(rest.get("trainer", {}))
    except ValueError as error:
        raise UserError(
            f"{weights} is damaged: {error}. This describes the model's training and would be "
            "copied into the records, so nothing was evaluated.\n"
            "Name another checkpoint of the run."
        ) from error


def load_trained(
    cfg: CfgNode, weights: str, *, report_folder: str = ""
) -> tuple[nn.Module, LoadReport | None, dict[str, Any]]:
    """Build the model of a config and fill the whole of it.

    Args:
        cfg: the full config.
        weights: file or address.
        report_folder: where the load report goes; "" for nowhere.

    Returns:
        The model, the report of what filled it, and the rest of the file, such as ``iteration``.

    Raises:
        UserError: the weights leave a part of the model at random init.
    """
    model = Trainer.build_model(cfg)
    checkpointer = TransferCheckpointer(model, report_folder, cfg=cfg, require="model")
    rest = checkpointer.load(weights)
    warn_of_changed(Path(weights).parent)
    for line in other_model_keys(cfg, weights):
        logger.warning("%s was trained with %s", weights, line)
    return model, checkpointer.report, rest
