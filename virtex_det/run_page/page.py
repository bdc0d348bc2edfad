"""Writes the page of a run, from the files in its folder and the data that it was evaluated on."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.config import CfgNode

from virtex_det.benchmark.conditions import duration
from virtex_det.benchmark.costs import read_cost
from virtex_det.benchmark.records import ResultRecord, read_records
from virtex_det.benchmark.tables import title_of
from virtex_det.checkpoint.report import RANDOM_INIT, LoadReport, Mismatch
from virtex_det.config import load_config
from virtex_det.config.data_names import short_names
from virtex_det.data.classes import is_detector
from virtex_det.engine.run_folder import CONFIG, PAGE, RUN_MARKERS, check_run_files, kept_files
from virtex_det.errors import UserError
from virtex_det.pages.html import render_html
from virtex_det.pages.paths import shown_path
from virtex_det.plugins import run_import_option
from virtex_det.run_page.curves import Series, draw_curves, read_series
from virtex_det.run_page.evaluated import (
    Wanted,
    evaluation_command,
    look_at_evaluation,
    number,
)
from virtex_det.text_files import read_json
from virtex_det.utils import write_atomically
from virtex_det_commands import as_called

_MAX_MEMORY = re.compile(rb"max_mem: (\d+)M")
_LOG = "log.txt"


class RunPage(NamedTuple):
    """The result of writing a page.

    Attributes:
        path: of the page.
        missing: what the page could not show and why, with what to do.
    """

    path: Path
    missing: list[str]


def write_run_page(
    run_folder: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    threshold: float | None = None,
    images: int = 6,
    datasets: Sequence[str] = (),
) -> RunPage:
    """Write the page of a run: curves, AP per class, errors, images, cost, load report.

    What cannot be shown, as without the run's predictions, is named on the page with the reason.

    Args:
        run_folder: OUTPUT_DIR of the run.
        output: the page; by default ``report.html`` in the folder.
        threshold: lowest score of a detection in the confusion matrix and in the images; by default
            that with the highest F1.
        images: the number of worst and of best images.
        datasets: names of the data of evaluations where they are not those of the config, such as
            yolo:data.yaml:val in another folder.

    Raises:
        UserError: the folder is not that of a run, or a file in it is damaged.
    """
    folder = Path(run_folder)
    cfg = _config(folder)
    records = read_records(folder)
    series = read_series(folder)
    last = {record.dataset: record for record in records}
    wanted = Wanted(threshold, images) if is_detector(cfg) else None
    full = {
        short: name
        for names in (cfg.DATASETS.TEST, datasets)
        for name, short in short_names(names).items()
    }
    looks = [
        look_at_evaluation(cfg, folder, record, full.get(short, short), wanted)
        for short, record in last.items()
    ]
    missing = [reason for _, reason in looks if reason]
    if not last:
        missing.append(
            "The run has no evaluation yet, so there is no AP. To evaluate its last checkpoint: "
            + evaluation_command(folder)
        )
    path = Path(output) if output else folder / PAGE
    content = {
        "title": _title(cfg, folder),
        "finding": _finding(cfg, [*last.values()]),
        "facts": _facts(cfg, folder, records),
        "plots": draw_curves(series, records),
        "sets": [look for look, _ in looks],
        "cost": _cost(folder, series, cfg),
        "load_report": _load_report(folder),
        "commands": _commands(cfg, folder),
        "missing": missing,
    }
    write_atomically(path, render_html("run_page/page.html.j2", **content))
    return RunPage(path, missing)


def _config(folder: Path) -> CfgNode:
    check_run_files(folder)
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. Name the OUTPUT_DIR of a run.")
    has_begun = any(any(folder.glob(marker)) for marker in (*RUN_MARKERS, "results.jsonl"))
    has_config = (folder / CONFIG).is_file()
    if not (has_config and has_begun):
        lacks = "no checkpoint and no metrics.json" if has_config else f"no {CONFIG}"
        raise UserError(
            f"{folder} is not a run folder: it has {lacks}. Name the OUTPUT_DIR of a run."
        )
    own = {key: str(path) for key, path in kept_files(folder).items()}
    return load_config(folder / CONFIG, {**own, "MODEL.DEVICE": "cpu"})


def _title(cfg: CfgNode, folder: Path) -> str:
    return f"{cfg.MODEL.META_ARCHITECTURE}, {shown_path(folder.resolve())}"


def _finding(cfg: CfgNode, records: Sequence[ResultRecord]) -> str:
    parts = []
    for record in records:
        numbers = [
            f"{title_of(f'{task}/AP')} {number(table['AP'])}"
            for task, table in record.metrics.items()
            if "AP" in table
        ] or [f"{name} {number(value)}" for name, value in [*record.flat_metrics().items()][:2]]
        parts.append(f"{', '.join(numbers)} on {record.dataset}")
    done = max((record.iteration or 0 for record in records), default=0)
    after = f" after {done} of {cfg.SOLVER.MAX_ITER} iterations" if done else ""
    return f"{'; '.join(parts) or 'Not evaluated yet'}{after}."


def _facts(cfg: CfgNode, folder: Path, records: Sequence[ResultRecord]) -> dict[str, str]:
    facts = {
        "Model": f"{cfg.MODEL.META_ARCHITECTURE}, {cfg.MODEL.BACKBONE.NAME}",
        "Trained on": ", ".join(cfg.DATASETS.TRAIN),
        "Schedule": f"{cfg.SOLVER.MAX_ITER} iterations of {cfg.SOLVER.IMS_PER_BATCH} images, "
        f"learning rate {cfg.SOLVER.BASE_LR:g}, {cfg.SOLVER.OPTIMIZER}",
        "Seed": str(cfg.SEED),
        "Weights": cfg.MODEL.WEIGHTS or "none: random init",
    }
    files = sorted(folder.glob("model_*.pth"))
    if files:
        facts["Checkpoint"] = f"{files[-1].name}, {files[-1].stat().st_size / 2**20:.1f} MiB"
    if not records:
        return facts
    record = records[-1]
    if record.train_images:
        epochs = cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH / record.train_images
        facts["Trained on"] += f": {record.train_images} images, {epochs:.1f} epochs"
    facts["Protocol"] = record.protocol
    hardware = record.hardware
    facts["Hardware"] = ", ".join(
        str(hardware[name]) for name in ("gpu", "cpu") if name in hardware
    )
    facts["Code"] = f"{record.code_revision}, {record.created}"
    if record.empty_categories:
        facts["No object in training"] = ", ".join(record.empty_categories)
    return facts


def _cost(folder: Path, series: dict[str, Series], cfg: CfgNode) -> dict[str, str]:
    facts = {}
    if cost := read_cost(folder):
        if cost.training_seconds is not None:
            facts["Training steps"] = duration(cost.training_seconds)
        if cost.cpu_seconds is not None:
            facts["Processor time"] = duration(cost.cpu_seconds)
        facts["Images seen"] = str(cost.images)
    for name, title in (("time", "A step"), ("data_time", "of which waiting for data")):
        if name in series:
            seconds = float(np.median(series[name].values))
            facts[title] = f"{seconds:.3g} s (median)"
    if "time" in series:
        median = float(np.median(series["time"].values))
        if median > 0:
            facts["Speed"] = f"{cfg.SOLVER.IMS_PER_BATCH / median:.3g} images per second"
    log = folder / _LOG
    if log.is_file() and (found := _MAX_MEMORY.findall(log.read_bytes())):
        facts["GPU memory"] = f"{max(map(int, found))} MiB at most"
    return facts


def _load_report(folder: Path) -> dict[str, str] | None:
    """Return what became of the weights, as facts; None where the run started without weights."""
    path = folder / "load_report.json"
    if not path.is_file():
        return None
    try:
        content = read_json(path)
        content["mismatched"] = [Mismatch(**each) for each in content["mismatched"]]
        known = {name: content[name] for name in LoadReport._fields if name in content}
        report = LoadReport(**known)
        table = report.table()
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}). Delete it, or put it back.") from error
    if report.format == RANDOM_INIT:
        return None
    return {
        "file": report.path,
        "format": report.format,
        "sha256": report.sha256,
        "table": table,
    }


def _commands(cfg: CfgNode, folder: Path) -> dict[str, str]:
    plugins = run_import_option(folder)
    train = f"python tools/train_net.py{plugins} --config-file {folder / CONFIG}"
    commands = {
        "Train longer": f"{train} --resume SOLVER.MAX_ITER {2 * cfg.SOLVER.MAX_ITER}",
        "Evaluate again": evaluation_command(folder),
    }
    if is_detector(cfg):
        commands["Find objects in pictures"] = (
            f"python tools/predict.py{plugins} --run {folder} PICTURES"
        )
        commands["Train on other data from these weights"] = (
            "python tools/init_config.py DATA --weights "
            f"{folder / 'model_final.pth'} --output run.yaml"
        )
    return {title: as_called(command) for title, command in commands.items()}
