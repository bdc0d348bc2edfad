"""The origin of a run besides its config: data, weights, number of processes; resuming needs the same."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm

from virtex_det.data.build import count_workers
from virtex_det.data.datasets import dataset_version
from virtex_det.data.training_set import are_shards, training_part
from virtex_det.engine.run_folder import read_start
from virtex_det.errors import UserError

Origin = dict[str, Any]  # plain values, for a checkpoint

_START = "start"  # the run's weights before its first step

_WHY = {
    "processes": "batch norm, and what each process draws, depend on their number. Start as many",
    "workers per process": "shards are dealt out to them. Set DATALOADER.NUM_WORKERS",
}


def follow_origin(cfg: CfgNode, began: Origin) -> Origin:
    """Return what a run begins with, and refuse to resume one that began with something else.

    Args:
        cfg: the config that is trained; its data have been loaded.
        began: what an earlier call returned for the run; empty where none did.

    Raises:
        UserError: a data set has changed since, there are more or fewer processes, or the folder's load report is of
            other weights.
    """
    now = comm.all_gather(_origin(cfg) if comm.is_main_process() else None)[0]
    if not now[_START]:  # the folder does not tell any more
        now[_START] = began.get(_START, {})
    for what in began:
        if began[what] != now.get(what):
            raise UserError(_explain(cfg, what, began[what], now.get(what)))
    return now


def schedule_of(cfg: CfgNode) -> dict[str, Any]:
    """Return the schedule keys that a resumed run may change."""
    return {"MAX_ITER": cfg.SOLVER.MAX_ITER, "STEPS": list(cfg.SOLVER.STEPS)}


def schedule_departures(changes: Sequence[int]) -> list[str]:
    """Return what records say of a schedule that was changed after so many iterations."""
    return [f"schedule-changed-at={iteration}" for iteration in changes]


def _origin(cfg: CfgNode) -> Origin:
    part = training_part(cfg)
    data = {name: dataset_version(name) for name in cfg.DATASETS.TRAIN}
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
        return (
            f"{run}{began} {what}, and this is {now}: {_WHY[what]} ({began}), or start a new run."
        )
    if what == _START:
        return (
            f"{run}weights of the format {began['format']} with the sha256 {began['sha256']!r:.20}, and its "
            f"load_report.json tells of {now['format']} with {now['sha256']!r:.20}: it is of another run.\n"
            "Put the run's own back, or delete it."
        )
    if not isinstance(began, dict):
        began, now = {what: began}, {what: now}
    changed = [key for key in began if began[key] != now.get(key)]
    lines = [f"  {key}: {began[key]}, and now {now.get(key)}" for key in changed]
    return "\n".join(
        [
            f"{run}other training data:",
            *lines,
            "Put these back to go on with it, or start a new run.",
        ]
    )
