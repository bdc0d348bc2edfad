"""The result record that every evaluation writes to the run folder."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm

from virtex_det.benchmark.records import ResultRecord, read_records, rewrite_records, sha256_of
from virtex_det.checkpoint import LoadReport
from virtex_det.config.data_names import short_names
from virtex_det.config.identity import config_sha256
from virtex_det.data.datasets.versions import dataset_version
from virtex_det.data.training_set import training_part
from virtex_det.engine.origin import Origin
from virtex_det.engine.run_folder import read_start, start_of
from virtex_det.errors import UserError
from virtex_det.plugins import plugin_hashes
from virtex_det.protocols.matching import protocol_id

logger = logging.getLogger(__name__)


def write_records(
    cfg: CfgNode,
    results: dict[str, Any],
    *,
    iteration: int | None,
    training_seconds: float | None,
    wall_seconds: float,
    evaluated: LoadReport | None = None,
    departures: Sequence[str] = (),
    origin: Origin | None = None,
) -> None:
    """Write a :class:`ResultRecord` per test dataset to ``cfg.OUTPUT_DIR``, on the main process.

    Args:
        cfg: the run's config.
        results: what ``Trainer.test`` returned: metrics of the one dataset, or metrics by dataset.
        iteration: number of training iterations behind the model, if known.
        training_seconds: their time over all resumed parts, without evaluations, if known.
        wall_seconds: time since the run or this evaluation began.
        evaluated: report of the weights file evaluated; None for the model in training.
        departures: from the protocol that the config cannot show, as ``NAME=VALUE``.
        origin: the training data, from the model's checkpoint; None reads them from the data sets.
    """
    if not comm.is_main_process():
        return
    by_dataset = results if len(cfg.DATASETS.TEST) > 1 else {cfg.DATASETS.TEST[0]: results}
    short = short_names(cfg.DATASETS.TEST)
    part = _part_of(origin) if origin else _training_part(cfg, is_needed=evaluated is None)
    for dataset, metrics in by_dataset.items():
        ResultRecord(
            protocol="+".join([protocol_id(cfg), *departures]),
            dataset=short[dataset],
            dataset_version=dataset_version(dataset),
            train_datasets=tuple(
                part["train_versions"] or short_names(cfg.DATASETS.TRAIN).values()
            ),
            train_fraction=cfg.DATASETS.TRAIN_FRACTION,
            subset_seed=cfg.DATASETS.SUBSET_SEED,
            seed=cfg.SEED,
            iteration=iteration,
            training_seconds=_tenths(training_seconds),
            metrics=_finite_metrics(metrics),
            weights=_start(Path(evaluated.path).parent if evaluated else cfg.OUTPUT_DIR, origin),
            evaluated=start_of(evaluated._asdict()) if evaluated else {},
            config_sha256=config_sha256(cfg),
            wall_seconds=round(wall_seconds, 1),
            plugins=plugin_hashes(),
            **part,
        ).write(cfg.OUTPUT_DIR)


def recorded_results(cfg: CfgNode, iteration: int) -> dict[str, Any] | None:
    """Return what ``Trainer.test`` returned after an iteration, from the records of this config.

    A run that was moved finds its own records. Records of data that have changed do not count.

    Returns:
        None on all processes if OUTPUT_DIR lacks a record; else {} on all but the main process.
    """
    found = None
    if comm.is_main_process():
        own = {config_sha256(cfg), sha256_of(cfg.dump())}  # the second in earlier records
        names = {short: name for name, short in short_names(cfg.DATASETS.TEST).items()}
        tables = {
            name: _results(record)
            for record in read_records(cfg.OUTPUT_DIR)
            if record.config_sha256 in own
            and (record.iteration, record.evaluated) == (iteration, {})
            and (name := names.get(record.dataset))
            and record.dataset_version == dataset_version(name)
        }
        if all(name in tables for name in cfg.DATASETS.TEST):
            found = tables if len(cfg.DATASETS.TEST) > 1 else tables[cfg.DATASETS.TEST[0]]
    if not comm.all_gather(found is not None)[0]:
        return None
    return found or {}


def cut_records(cfg: CfgNode, iteration: int) -> None:
    """Remove from OUTPUT_DIR the records that a run resumed at ``iteration`` writes again.

    Records of evaluations without training stay.

    Raises:
        UserError: as ``check_records``.
    """
    kept = []
    for record in check_records(cfg):
        if record.evaluated or (record.iteration or 0) <= iteration:
            kept.append(record)
    rewrite_records(cfg.OUTPUT_DIR, kept)


def warn_of_lost_records(cfg: CfgNode, evaluations: Sequence[int]) -> None:
    """Warn if OUTPUT_DIR lacks records of evaluations that the resumed run has made.

    So it is with a folder that was copied while its run was training.

    Args:
        cfg: the run's config.
        evaluations: the iterations that were done before each.
    """
    there = {record.iteration for record in read_records(cfg.OUTPUT_DIR) if not record.evaluated}
    if lost := [number for number in evaluations if number not in there]:
        logger.warning(
            "%s/results.json lacks the evaluations after %s iterations. Was the folder copied "
            "while the run was training? The training itself goes on as it was",
            cfg.OUTPUT_DIR,
            ", ".join(map(str, lost)),
        )


def check_records(cfg: CfgNode) -> list[ResultRecord]:
    """Return the records in OUTPUT_DIR; refuse those of another run, which tables would mix up.

    Raises:
        UserError: a file of records is damaged, or holds records of another run.
    """
    records = read_records(cfg.OUTPUT_DIR)
    own = {
        "seed": cfg.SEED,
        "subset_seed": cfg.DATASETS.SUBSET_SEED,
        "train_fraction": cfg.DATASETS.TRAIN_FRACTION,
        "train_datasets": tuple(short_names(cfg.DATASETS.TRAIN).values()),
    }
    for record in records:
        if record.evaluated:
            continue
        for name, value in own.items():
            found = getattr(record, name)
            if name == "train_datasets":  # records of earlier versions have whole names
                found = tuple(short_names(found).values())
            if found != value:
                raise UserError(
                    f"{cfg.OUTPUT_DIR}/results.jsonl holds a record of another run: its {name} is "
                    f"{found}; expected {value}.\n"
                    "Put the run's own file back, or delete this one and results.json."
                )
    return records


def _results(record: ResultRecord) -> dict[str, dict[str, float]]:
    return {
        task: {name: math.nan if value is None else value for name, value in table.items()}
        for task, table in record.metrics.items()
    }


def _training_part(cfg: CfgNode, *, is_needed: bool) -> dict[str, Any]:
    """Return a record's entries on the training data; empty if evaluation does not find it."""
    try:
        part = training_part(cfg)
        short = short_names(cfg.DATASETS.TRAIN)
        versions = {short[name]: dataset_version(name) for name in short}
    except UserError:
        if is_needed:
            raise
        return {
            "train_versions": {},
            "train_images": None,
            "manifest_sha256": "",
            "empty_categories": (),
        }
    return {
        "train_versions": versions,
        "train_images": part.images,
        "manifest_sha256": part.manifest_sha256,
        "empty_categories": part.empty_categories,
    }


def _start(run_folder: str | Path, origin: Origin | None) -> dict[str, str]:
    """Return what a run started from, from its load report or else from its checkpoint."""
    began = origin.get("start") if origin else None
    return read_start(run_folder) or ({"path": "", **began} if began else {})


def _part_of(origin: Origin) -> dict[str, Any]:
    return {
        "train_versions": origin["data"],
        "train_images": origin["images"]["number"],
        "manifest_sha256": origin["images"]["manifest sha256"],
        "empty_categories": tuple(origin["empty categories"]),
    }


def _finite_metrics(metrics: dict[str, dict[str, float]]) -> dict[str, dict[str, float | None]]:
    found = {}
    for task, numbers in metrics.items():
        found[task] = {name: _finite(value) for name, value in numbers.items()}
    return found


def _finite(value: float) -> float | None:
    """Replace NaN (a category without instances, an unknown time), which JSON does not have."""
    return float(value) if math.isfinite(value) else None


def _tenths(seconds: float | None) -> float | None:
    return None if seconds is None else _finite(round(seconds, 1))
