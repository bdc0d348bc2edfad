"""Pre-flight checks of a matrix: faults of any run are found before the first one starts."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from virtex_det.checkpoint.hashing import file_sha256
from virtex_det.config import get_cfg, load_config, override, plain_leaves
from virtex_det.config.renames import OLD_NAMES
from virtex_det.config.roles import IN_CELL, OF_MATRIX, keys_of
from virtex_det.engine.preflight import (
    check_data,
    check_schedule,
    check_settings,
    check_successor,
    check_trainings,
)
from virtex_det.engine.preflight import check_weights as check_weights_fit
from virtex_det.engine.run_folder import read_start
from virtex_det.engine.trained_config import on_this_machine
from virtex_det.errors import UserError
from virtex_det.experiments.runs import Run
from virtex_det.model_zoo.cache import cache_path
from virtex_det.model_zoo.catalog import find, list_models
from virtex_det.model_zoo.handler import PREFIX
from virtex_det.yaml_files import parse_yaml, read_yaml

# What differs between the runs that share a config; a part of the data may scale the schedule, so it is in the config.
PER_CELL = tuple(key for key, origin in OF_MATRIX.items() if origin in ("start", "seed"))


@cache
def config_of(path: Path, options: tuple[str, ...]) -> CfgNode:
    """Return the config that runs share; building one for each run would take seconds.

    Raises:
        UserError: there is no such file, or a key or value that does not fit.
    """
    return load_config(str(path), list(options))


def check_weights(starts: Mapping[str, str]) -> None:
    """Refuse weights that are not there.

    Args:
        starts: file, address or ``virtex://`` name by name of the start; "" for random.

    Raises:
        UserError: naming the nearest that are there.
    """
    for name, weights in starts.items():
        if weights.startswith(PREFIX):
            find(weights.removeprefix(PREFIX))
        elif weights and "://" not in weights and not Path(weights).is_file():
            folder = Path(weights).parent
            others = [str(path) for path in folder.iterdir()] if folder.is_dir() else []
            nearest = _nearest(weights, [*others, *(PREFIX + model for model in list_models())])
            raise UserError(
                f"The start {name!r} names weights that are not there: {weights}.{nearest}"
            )


def check_sources(runs: Iterable[Run]) -> None:
    """Check each run before any starts, as it will itself: keys, vocabulary, weights, data, evaluation.

    Weights that are still to be fetched are looked at when they are there, by the run itself.

    Raises:
        UserError: names what would end a run, and what to do.
    """
    runs = list(runs)
    configs = list({id(cfg): cfg for cfg in map(_shared_config, runs)}.values())
    for cfg in configs:
        check_schedule(cfg)
        check_settings(cfg)
        check_data(cfg, [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
    for cfg, weights, before in _starts(runs):
        if before is not None:
            check_successor(cfg, before)
        else:
            check_weights_fit(cfg, weights)
    check_trainings(configs)


def _starts(runs: Sequence[Run]) -> Iterator[tuple[CfgNode, str, CfgNode | None]]:
    """Yield each config once with each start: weights that are here, or the config that makes them."""
    seen = set()
    for run in runs:
        cfg, weights = _shared_config(run), _weights_of(run)
        before = _shared_config(run.after) if run.after else None
        if (id(cfg), weights, id(before)) not in seen:
            seen.add((id(cfg), weights, id(before)))
            yield cfg, weights, before


def _weights_of(run: Run) -> str:
    """Return the weights that a run starts from, "" for random init or weights that are not fetched yet."""
    weights = dict(zip(run.options[::2], run.options[1::2], strict=True)).get("MODEL.WEIGHTS", "")
    if weights.startswith(PREFIX):
        return weights if cache_path(find(weights.removeprefix(PREFIX))).is_file() else ""
    return weights if "://" not in weights and not run.after else ""


def check_folders(runs: Iterable[Run]) -> None:
    """Refuse folders that hold a run of another config: its numbers would stand in the wrong place.

    Raises:
        UserError: naming folder, keys and values.
    """
    for run in runs:
        path = run.folder / "config.yaml"
        if not path.exists():
            continue
        theirs, ours = _settings_of_file(path), _settings(run)
        other = {key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]}
        if run.after:
            other.discard("MODEL.WEIGHTS")
            _check_start(run)
        if other:
            shown = "\n".join(
                f"  {key}: {theirs[key]} there, {ours[key]} in the matrix"
                for key in sorted(other)[:5]
            )
            raise UserError(
                f"{run.folder} holds a run of another config:\n{shown}\n"
                "Give the matrix another output, or move that folder away to do the run again."
            )


def _check_start(run: Run) -> None:
    """Refuse a run whose starting weights have been made again since."""
    weights, start = (
        run.after.folder / "model_final.pth" if run.after else None,
        read_start(run.folder),
    )
    if not weights or not weights.exists() or not start:
        return
    if start["sha256"] != _sha256(weights, weights.stat().st_mtime_ns):
        raise UserError(
            f"{run.folder} did not start from what {weights} holds now. Move that folder away."
        )


@cache
def _sha256(path: Path, changed: int) -> str:
    return file_sha256(path)


def _shared_config(run: Run) -> CfgNode:
    pairs = zip(run.options[::2], run.options[1::2], strict=True)
    return config_of(
        run.config, tuple(word for pair in pairs if pair[0] not in PER_CELL for word in pair)
    )


def _settings(run: Run) -> dict[str, Any]:
    pairs = dict(zip(run.options[::2], run.options[1::2], strict=True))
    own = {
        key: parse_yaml(pairs[key], key) if key != "MODEL.WEIGHTS" else pairs[key]
        for key in PER_CELL
        if key in pairs
    }
    return _of_cell(on_this_machine(_shared_config(run))) | own


def _settings_of_file(path: Path) -> dict[str, Any]:
    try:
        content = _of_cell(read_yaml(path), *OLD_NAMES)
        return content if OLD_NAMES.keys().isdisjoint(content) else _under_new_names(content)
    except (UserError, ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path} is not as a run wrote it: {error}\nMove its folder away to do the run again."
        ) from error


def _of_cell(content: Mapping[str, Any], *others: str) -> dict[str, Any]:
    """Return the values that two runs of one cell share, and those of other keys."""
    keys = _keys_of_cell().union(others)
    return {key: value for key, value in plain_leaves(content).items() if key in keys}


def _under_new_names(content: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a config of an earlier version under today's names."""
    renamed = [new for news in OLD_NAMES.values() for new in news]
    now = plain_leaves(override(get_cfg(), {**content, "MODEL.DEVICE": "cpu"}))  # whatever is here
    return {key: now[key] for key in {*content, *renamed} if key in now}


@cache
def _keys_of_cell() -> frozenset[str]:
    return frozenset(keys_of(*IN_CELL))


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=4, cutoff=0.4)
    return f" The nearest: {', '.join(found)}" if found else ""
