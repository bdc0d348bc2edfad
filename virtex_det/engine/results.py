"""The record that every evaluation leaves in the run folder."""

import json
import math
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm

from virtex_det.benchmark.records import ResultRecord, sha256_of
from virtex_det.checkpoint import LoadReport


def write_records(
    cfg: CfgNode,
    results: dict[str, Any],
    *,
    iteration: int | None,
    wall_seconds: float,
    evaluated: LoadReport | None = None,
) -> None:
    """Write one :class:`ResultRecord` per test dataset into ``cfg.OUTPUT_DIR``; on the main process alone.

    Args:
        cfg: the run's config.
        results: what ``Trainer.test`` returned: metrics of the one dataset, or metrics by dataset.
        iteration: training iterations behind the model, if known.
        wall_seconds: time since the run or this evaluation began.
        evaluated: report of the weights file evaluated; None for the model in training.
    """
    if not comm.is_main_process():
        return
    by_dataset = results if len(cfg.DATASETS.TEST) > 1 else {cfg.DATASETS.TEST[0]: results}
    for dataset, metrics in by_dataset.items():
        ResultRecord(
            protocol=cfg.PROTOCOL,
            dataset=dataset,
            train_datasets=tuple(cfg.DATASETS.TRAIN),
            train_fraction=cfg.DATASETS.TRAIN_FRACTION,
            subset_seed=cfg.DATASETS.SUBSET_SEED,
            seed=cfg.SEED,
            iteration=iteration,
            metrics={task: {name: _finite(value) for name, value in table.items()} for task, table in metrics.items()},
            weights=_weights(Path(evaluated.path).parent if evaluated else Path(cfg.OUTPUT_DIR)),
            evaluated=_identity(evaluated._asdict()) if evaluated else {},
            config_sha256=sha256_of(cfg.dump()),
            wall_seconds=round(wall_seconds, 1),
        ).write(cfg.OUTPUT_DIR)


def _finite(value: float) -> float | None:
    """JSON has no NaN, which Detectron2 reports for a category without instances."""
    return float(value) if math.isfinite(value) else None


def _weights(run_folder: Path) -> dict[str, str]:
    """Return path, sha256 and format of what the run in a folder started from; empty where nothing tells."""
    report = run_folder / "load_report.json"
    return _identity(json.loads(report.read_text())) if report.exists() else {}


def _identity(report: dict[str, Any]) -> dict[str, str]:
    return {key: report[key] for key in ("path", "sha256", "format")}
