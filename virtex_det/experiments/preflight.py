"""Pre-flight checks of a matrix: faults of any run are found before the first one starts."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from detectron2.config import CfgNode

from virtex_det.checkpoint import follow_weights
from virtex_det.checkpoint.hashing import Digest
from virtex_det.checkpoint.reading import check_path
from virtex_det.config import with_options
from virtex_det.config.data_names import keys_of_data, portable_leaves
from virtex_det.config.roles import IN_CELL, OF_MATRIX, keys_of
from virtex_det.data.datasets.loading import forget_loaded
from virtex_det.data.following import follow_data
from virtex_det.engine.preflight import (
    check_data,
    check_probe,
    check_probe_data,
    check_schedule,
    check_settings,
    check_successor,
    check_trainings,
)
from virtex_det.engine.preflight import check_weights as check_weights_fit
from virtex_det.engine.run_folder import CONFIG, check_run_files, is_run_folder, read_beginning
from virtex_det.engine.trained_config import on_this_machine
from virtex_det.errors import UserError
from virtex_det.experiments.configs import config_of, trained_config
from virtex_det.experiments.runs import Run
from virtex_det.files import check_output_folder
from virtex_det.model_zoo.cache import cache_path
from virtex_det.model_zoo.catalog import find, list_models
from virtex_det.model_zoo.handler import PREFIX

# Keys that differ between runs that share a config. DATASETS.TRAIN_FRACTION is not among them: it
# may scale the schedule.
PER_CELL = {key for key, origin in OF_MATRIX.items() if origin in ("start", "seed")}


def check_weights(starts: Mapping[str, str]) -> None:
    """Refuse weights that do not exist, and files or folders that are not weights.

    Args:
        starts: file, address or ``virtex://`` name by name of the start; "" for random init.

    Raises:
        UserError: weights are missing, and the message names similar ones that exist; or a file or
            folder is something else.
    """
    for name, weights in starts.items():
        if weights.startswith(PREFIX):
            find(weights.removeprefix(PREFIX))
        elif "://" in weights and not _is_address(weights):
            raise UserError(
                f"The start {name!r} names an invalid address: {weights}. Expected one such as "
                "https://example.org/model.pth."
            )
        elif weights and "://" not in weights:
            _check_local(name, weights)


def _check_local(name: str, weights: str) -> None:
    """Refuse a path that does not exist, or does not begin as a weights file."""
    path = Path(weights).expanduser()
    if path.exists():
        try:
            check_path(weights)
        except UserError as error:
            raise UserError(f"The weights of the start {name!r}: {error}") from error
        return
    others = [str(each) for each in path.parent.iterdir()] if path.parent.is_dir() else []
    known = [*others, *(PREFIX + model for model in list_models())]
    similar = difflib.get_close_matches(weights, known, n=4, cutoff=0.4)
    nearest = f" The nearest: {', '.join(similar)}." if similar else " Check the path."
    raise UserError(f"The weights of the start {name!r} do not exist: {weights}.{nearest}")


def _is_address(name: str) -> bool:
    try:
        return bool(urlsplit(name).netloc)
    except ValueError:
        return False


def check_sources(runs: Iterable[Run]) -> None:
    """Check keys, vocabulary, weights, data and evaluation of all runs, as each run does itself.

    Weights that are not downloaded yet are only checked by the run.

    Raises:
        UserError: a run would fail; says why, and what to do.
    """
    try:
        _check_sources(list(runs))
    finally:
        forget_loaded()


def _check_sources(runs: Sequence[Run]) -> None:
    trainings = _trained_configs(run for run in runs if not run.is_probe)
    probes = _trained_configs(run for run in runs if run.is_probe)
    for cfg in [*trainings, *probes]:
        follow_data(cfg)  # another config may have registered the same data with other classes
        check_schedule(cfg)
        check_settings(cfg)
        check_data(cfg, [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
    for cfg in probes:
        check_probe(cfg)
    for cfg, weights, before in _starts(runs):
        if before is not None:
            check_successor(cfg, before)
        else:
            check_weights_fit(
                follow_weights(with_options(cfg, ["MODEL.WEIGHTS", weights])), weights
            )
    check_trainings(trainings)
    for cfg in probes:
        check_probe_data(cfg)


def _starts(runs: Sequence[Run]) -> Iterator[tuple[CfgNode, str, CfgNode | None]]:
    """Yield each config once with each start: its weights, or the config that makes them."""
    seen = set()
    for run in runs:
        cfg, weights = _shared_config(run, trained_config), _weights_of(run)
        before = _shared_config(run.after, trained_config) if run.after else None
        if (id(cfg), weights, id(before)) not in seen:
            seen.add((id(cfg), weights, id(before)))
            yield cfg, weights, before


def _weights_of(run: Run) -> str:
    """Return the weights of a run's start; "" for random init or weights to be downloaded."""
    weights = _options(run).get("MODEL.WEIGHTS", "")
    if weights.startswith(PREFIX):
        return weights if cache_path(find(weights.removeprefix(PREFIX))).is_file() else ""
    return weights if "://" not in weights and not run.after else ""


def check_folders(runs: Iterable[Run]) -> None:
    """Refuse folders that hold a run of another config: its numbers would get into the comparison.

    Raises:
        UserError: a folder holds another run; names it with the keys that differ.
    """
    for run in runs:
        if not (run.folder / CONFIG).exists():
            continue
        ours = _settings(run)
        began = read_beginning(run.folder)
        theirs = portable_leaves(began.config)
        other = [key for key in sorted(ours) if key in theirs and theirs[key] != ours[key]]
        if run.after:
            # Its name may be another in a folder that was moved; its content counts.
            other = [key for key in other if key != "MODEL.WEIGHTS"]
            weights = run.after.folder / "model_final.pth"
            is_known = weights.exists() and began.sha256
            if is_known and began.sha256 != Digest([weights]).wait():
                raise UserError(
                    f"The run in {run.folder} started from an earlier content of {weights}. Move "
                    "its folder away to do the run again."
                )
        if other:
            lines = [
                f"  {key}: {theirs[key]} there, {ours[key]} in the matrix" for key in other[:5]
            ]
            lines.append("Set another output in the matrix, or move that folder away and rerun.")
            raise UserError("\n".join([f"{run.folder} holds a run of another config:", *lines]))


def check_output(folder: Path, runs: Iterable[Run]) -> None:
    """Refuse an output folder of a matrix that cannot take its runs.

    Args:
        folder: the output.
        runs: those that are still to be done.

    Raises:
        UserError: a file is in the way of the folder, of a run's folder or of what a run writes;
            or it cannot be written, or lies in the folder of another run.
    """
    check_output_folder(folder)
    whole = folder.resolve()
    for outer in (whole, *whole.parents):
        if is_run_folder(outer):
            raise UserError(
                f"output: {folder} is in the folder of another run, {outer}, whose files would "
                "mix with those of the matrix. Name another output."
            )
    for run in runs:
        check_output_folder(run.folder)
        check_run_files(run.folder)


def _settings(run: Run) -> dict[str, Any]:
    """Return a run's values of the keys that decide its results, as the run writes them."""
    options, cfg = _options(run), _shared_config(run)
    settings = portable_leaves(on_this_machine(cfg))
    for key in PER_CELL & options.keys():
        settings[key] = options[key] if key == "MODEL.WEIGHTS" else int(options[key])
    # Records name the version of the data, so what a run took from them need not be compared.
    of_data = keys_of_data(cfg)
    return {key: settings[key] for key in keys_of(*IN_CELL) if key not in of_data}


def _trained_configs(runs: Iterable[Run]) -> list[CfgNode]:
    found = [_shared_config(run, trained_config) for run in runs]
    return list({id(cfg): cfg for cfg in found}.values())


def _shared_config(run: Run, read: Callable[..., CfgNode] = config_of) -> CfgNode:
    """Return the config that a run shares with others, as ``config_of`` or ``trained_config``."""
    shared = [pair for pair in _options(run).items() if pair[0] not in PER_CELL]
    return read(run.config, tuple(word for pair in shared for word in pair))


def _options(run: Run) -> dict[str, str]:
    return dict(zip(run.options[::2], run.options[1::2], strict=True))
