"""From a config file and ``KEY VALUE`` overrides to a frozen config."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, downgrade_config, upgrade_config

from virtex_det.config.defaults import get_cfg
from virtex_det.config.yaml_files import read_config_file
from virtex_det.errors import UserError


def load_config(config_file: str, overrides: list[str]) -> CfgNode:
    """Return the frozen config of a file and ``KEY VALUE`` overrides, on CPU where there is no GPU.

    YAML is read safely: tags that would run code are refused. A whole number will do where a key holds a fraction.
    The schedule is scaled to DATASETS.TRAIN_FRACTION where SOLVER.REFERENCE_FRACTION says that it is for another.

    Raises:
        UserError: for a file that is missing or not YAML, and for keys and values that do not fit.
    """
    cfg = get_cfg()
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    if config_file and not Path(config_file).is_file():
        raise UserError(f"There is no config file {config_file}. Those that come with virtex_det lie under configs/.")
    try:
        if config_file:
            _merge_file(cfg, config_file)
        cfg.merge_from_list(_with_float_options(cfg, overrides))
    except (KeyError, AssertionError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise UserError(_explain(error, cfg)) from error
    scale_schedule(cfg)
    cfg.freeze()
    return cfg


def scale_schedule(cfg: CfgNode) -> None:
    """Scale MAX_ITER, STEPS and WARMUP_ITERS by TRAIN_FRACTION / REFERENCE_FRACTION, so that the epochs stay.

    Nothing happens where REFERENCE_FRACTION is 0. Afterwards it is TRAIN_FRACTION, so that a config that a run wrote is
    not scaled again. Results are rounded, with one iteration at least, and steps stay one after the other. Periods of
    evaluation and checkpoints stay as they are.

    Args:
        cfg: is changed; not frozen.

    Raises:
        UserError: REFERENCE_FRACTION is not within [0, 1].
    """
    solver, fraction = cfg.SOLVER, cfg.DATASETS.TRAIN_FRACTION
    reference = solver.REFERENCE_FRACTION
    if not 0 <= reference <= 1:
        raise UserError(
            f"SOLVER.REFERENCE_FRACTION is {reference}; it must be a DATASETS.TRAIN_FRACTION (above 0, at most 1), "
            "or 0 for schedules that stand as they are."
        )
    if reference in (0, fraction) or not 0 < fraction <= 1:  # which is refused where the data are loaded
        return
    scale, warmup, total = fraction / reference, solver.WARMUP_ITERS, solver.MAX_ITER
    solver.MAX_ITER = max(1, round(total * scale))
    # Rounding must not make a warm-up that ends in time one that does not.
    solver.WARMUP_ITERS = min(round(warmup * scale), solver.MAX_ITER - (warmup < total))
    steps: list[int] = []
    for step in solver.STEPS:
        steps.append(max(round(step * scale), steps[-1] + 1 if steps else 1))
    solver.STEPS = tuple(steps)
    solver.REFERENCE_FRACTION = fraction


def with_options(cfg: CfgNode, options: list[str]) -> CfgNode:
    """Return a frozen copy of a config with ``KEY, VALUE`` pairs set."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(options)
    cfg.freeze()
    return cfg


def leaves(node: CfgNode) -> Iterator[tuple[str, Any]]:
    """Yield every key of a config by its dotted name, with its value."""
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from ((f"{key}.{inner}", leaf) for inner, leaf in leaves(value))
        else:
            yield key, value


def _merge_file(cfg: CfgNode, config_file: str) -> None:
    given = CfgNode(read_config_file(config_file))
    version = given.get("VERSION", cfg.VERSION)
    if version == cfg.VERSION:
        cfg.merge_from_other_cfg(_with_floats(cfg, given))
        return
    if version not in range(1, cfg.VERSION):
        raise UserError(f"{config_file} has VERSION {version!r}; expected 1 to {cfg.VERSION}.")
    earlier = downgrade_config(cfg, to_version=version)
    earlier.merge_from_other_cfg(given)
    converted = upgrade_config(earlier)
    cfg.clear()
    cfg.update(converted)


def _with_floats(cfg: CfgNode, given: CfgNode) -> CfgNode:
    """Make floats of whole numbers where a config holds floats; yacs takes them for another type."""
    for key, value in given.items():
        if isinstance(value, CfgNode) and isinstance(cfg.get(key), CfgNode):
            _with_floats(cfg[key], value)
        elif type(value) is int and isinstance(cfg.get(key), float):
            given[key] = float(value)
    return given


def _with_float_options(cfg: CfgNode, options: list[str]) -> list[Any]:
    floats = {key for key, value in leaves(cfg) if isinstance(value, float)}
    return [
        float(word) if before in floats and re.fullmatch(r"[+-]?\d+", str(word)) else word
        for before, word in zip(["", *options], options, strict=False)
    ]


def _explain(error: Exception, cfg: CfgNode) -> str:
    text = str(error).strip("'\"")
    match = re.search(r"[Nn]on-existent (?:config )?key: (\S+)", text)
    if not match:
        return f"The config does not fit: {text}"
    key = match.group(1)
    similar = difflib.get_close_matches(key, list(_keys(cfg)), n=3, cutoff=0.5)
    return f"There is no config key {key}." + (f" The nearest: {', '.join(similar)}" if similar else "")


def _keys(node: CfgNode) -> Iterator[str]:
    for key, value in node.items():
        yield key
        if isinstance(value, CfgNode):
            yield from (f"{key}.{inner}" for inner in _keys(value))
