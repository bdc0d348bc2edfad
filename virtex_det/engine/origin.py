"""What a run begins with besides its config, and must be resumed with: data, weights, processes."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm

from virtex_det.config.data_names import short_names
from virtex_det.data.build import count_workers
from virtex_det.data.datasets import dataset_version
from virtex_det.data.training_set import are_shards, training_part
from virtex_det.engine.run_folder import read_start
from virtex_det.errors import UserError

Origin = dict[str, Any]  # plain values, for a checkpoint

_START = "start"  # the run's weights before its first step

_WHY = {
    "processes": "batch norm and random draws depend on it.\nStart {} processes",
    "workers per process": "it decides which shards a worker reads.\nSet DATALOADER.NUM_WORKERS {}",
}


def follow_origin(cfg: CfgNode, began: Origin) -> Origin:
    """Return what a run begins with, and refuse to resume a run that began with something else.

    Args:
        cfg: the config that is trained; its data have been loaded.
        began: what an earlier call returned for the run; empty if there was no such call.

    Raises:
        UserError: a data set has changed, the number of processes is another, or the folder's load
            report describes other weights.
    """
    now = comm.all_gather(_origin(cfg) if comm.is_main_process() else None)[0]
    if not now[_START]:  # the run folder has lost its load report
        now[_START] = began.get(_START, {})
    if "data" in began:  # checkpoints of earlier versions have whole names
        short = short_names(began["data"])
        began = {**began, "data": {short[name]: found for name, found in began["data"].items()}}
    for what in began:
        if began[what] != now.get(what):
            raise UserError(_explain(cfg, what, began[what], now.get(what)))
    return now


def schedule_of(cfg: CfgNode) -> dict[str, Any]:
    """Return the schedule keys that a resumed run may change."""
    return {"MAX_ITER": cfg.SOLVER.MAX_ITER, "STEPS": list(cfg.SOLVER.STEPS)}


def schedule_departures(changes: Sequence[int]) -> list[str]:
    """Return what records say about a schedule that changed after the given iterations."""
    return [f"schedule-changed-at={iteration}" for iteration in changes]


def _origin(cfg: CfgNode) -> Origin:
    part = training_part(cfg)
    short = short_names(cfg.DATASETS.TRAIN)
    data = {short[name]: dataset_version(name) for name in short}
    workers = {"workers per process": count_workers(cfg)} if are_shards(cfg) else {}
    return {
        "data": data,
        "images": {"number": part.images, "manifest sha256": part.manifest_sha256},
        "empty categories": list(part.empty_categories),
        "processes": comm.get_world_size(),
        _START: {
            name: value for name, value in read_start(cfg.OUTPUT_DIR).items() if name != "path"
        },
        **workers,
    }


def _explain(cfg: CfgNode, what: str, began: Any, now: Any) -> str:
    run = f"The run in {cfg.OUTPUT_DIR} began with "
    if what in _WHY:
        why = _WHY[what].format(began)
        return f"{run}{began} {what}, now it has {now}: {why}, or start a new run."
    if what == _START:
        return (
            f"{run}weights of format {began['format']} and sha256 {began['sha256']!r:.20}. "
            f"load_report.json in that folder is of another run: its format is {now['format']}, "
            f"its sha256 {now['sha256']!r:.20}.\n"
            "Put the run's own load_report.json back, or delete this one."
        )
    if not isinstance(began, dict):
        began, now = {what: began}, {what: now}
    changed = [key for key in began if began[key] != now.get(key)]
    lines = [f"  {key}: {began[key]}, now {now.get(key)}" for key in changed]
    advice = "Restore the earlier data to go on with it, or start a new run."
    return "\n".join([f"{run}other training data:", *lines, advice])
