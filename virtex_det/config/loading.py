"""Loading a frozen config from a config file and ``KEY VALUE`` overrides."""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, downgrade_config, upgrade_config

from virtex_det.config.checks import check_config
from virtex_det.config.data_names import KEYS, NUMBER_KEYS, OBJECTS, is_by_name
from virtex_det.config.defaults import get_cfg
from virtex_det.config.device import check_device, default_device, device_of_file
from virtex_det.config.files import find_config, read_config_file
from virtex_det.config.mappers import name_mapper
from virtex_det.config.nodes import leaves
from virtex_det.config.renames import (
    OLD_NAMES,
    admit_old_names,
    forget,
    replace_old_names,
    superseded,
    without_effect,
)
from virtex_det.errors import UserError
from virtex_det.files import as_name
from virtex_det.plugins import import_entry_points
from virtex_det.yaml_files import shortened

Overrides = Mapping[str, Any] | Sequence[Any]  # {"KEY": value} or ["KEY", value, "KEY", value]

_SHOWN = 200  # characters of a value in a message
# Errors that merging an unknown key or an invalid value raises.
_DOES_NOT_FIT = (
    KeyError,
    AssertionError,
    ValueError,
    TypeError,
    AttributeError,
    RecursionError,
    MemoryError,
)


def load_config(config_file: str | os.PathLike[str] = "", overrides: Overrides = ()) -> CfgNode:
    """Return the frozen config of a file and overrides of its keys, on CPU if there is no GPU.

    YAML is read safely: tags that would run code are refused. Plugins are imported (see
    ``virtex_det.plugins``). An integer is accepted for a float,
    and the name of one data set for a list of it. The schedule is scaled to
    DATASETS.TRAIN_FRACTION if SOLVER.REFERENCE_FRACTION is another fraction. An empty
    DATALOADER.MAPPER becomes the model's own mapper. A device in the file that is not available
    becomes the default one. Where data are named by where they lie, the detector's number of
    classes becomes 0, which means that of the data, unless file or overrides give it. Old names of
    keys are read as the new ones (see ``config/renames.py``).

    Args:
        config_file: "" for the defaults alone.
        overrides: ``{"KEY": value}`` or, as on a command line, a list of ``KEY, VALUE`` pairs; a
            value may be text.

    Raises:
        UserError: the file is missing or not YAML, a key is unknown, or a value is invalid.

    Example:
        >>> load_config(overrides={"MODEL.RESNETS.DEPTH": 101}).MODEL.RESNETS.DEPTH
        101
    """
    config_file = as_name(config_file, "The config file")
    import_entry_points()
    # First, because it imports plugins, which add keys.
    content = read_config_file(find_config(config_file)) if config_file else {}
    cfg = get_cfg()
    cfg.MODEL.DEVICE = default_device()
    admit_old_names(cfg)
    given: set[str] = set()
    if config_file:
        given = _merge_file(cfg, content, config_file)
        cfg.MODEL.DEVICE = device_of_file(cfg.MODEL.DEVICE, config_file)
    given |= {key for key, _ in override_pairs(overrides)}
    _merge_options(cfg, overrides)
    _follow_number_of_classes(cfg, given)
    return _finish(cfg)


def override(cfg: CfgNode, overrides: Overrides) -> CfgNode:
    """Return a frozen copy of a config with keys set, checked as ``load_config`` checks them.

    Args:
        cfg: is not changed.
        overrides: as for ``load_config``.

    Raises:
        UserError: as ``load_config``.
    """
    cfg = cfg.clone()
    cfg.defrost()
    admit_old_names(cfg)
    _merge_options(cfg, overrides)
    return _finish(cfg)


def _follow_number_of_classes(cfg: CfgNode, given: Set[str]) -> None:
    """Let the number of classes be that of data named by where they lie, unless it is given."""
    key = NUMBER_KEYS.get(cfg.MODEL.META_ARCHITECTURE, "")
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    if key and key not in given and any(is_by_name(str(name), OBJECTS) for name in names):
        reduce(getattr, key.split(".")[:-1], cfg).NUM_CLASSES = 0


def _finish(cfg: CfgNode) -> CfgNode:
    replace_old_names(cfg)
    _expand_home(cfg)
    check_config(cfg)
    check_device(cfg.MODEL.DEVICE)
    name_mapper(cfg)
    scale_schedule(cfg)
    cfg.freeze()
    return cfg


def scale_schedule(cfg: CfgNode) -> None:
    """Scale MAX_ITER, STEPS and WARMUP_ITERS by TRAIN_FRACTION / REFERENCE_FRACTION.

    The number of epochs stays. REFERENCE_FRACTION 0 means no scaling. Afterwards it equals
    TRAIN_FRACTION, so that a config that a run wrote is not scaled again. Results are rounded;
    MAX_ITER is at least 1, and STEPS stay distinct. Periods of evaluation and of checkpoints are
    not scaled.

    Args:
        cfg: is changed; not frozen.

    Raises:
        UserError: REFERENCE_FRACTION is not within [0, 1].
    """
    solver, fraction = cfg.SOLVER, cfg.DATASETS.TRAIN_FRACTION
    reference = solver.REFERENCE_FRACTION
    if not 0 <= reference <= 1:
        raise UserError(
            f"SOLVER.REFERENCE_FRACTION is {reference}; it must be a DATASETS.TRAIN_FRACTION "
            "(above 0, at most 1), or 0 for a schedule that is not scaled."
        )
    # An invalid fraction is refused when the data are loaded.
    if reference in (0, fraction) or not 0 < fraction <= 1:
        return
    scale, warmup, total = fraction / reference, solver.WARMUP_ITERS, solver.MAX_ITER
    solver.MAX_ITER = max(1, round(total * scale))
    # A warm-up that ends before MAX_ITER does so after rounding, too.
    solver.WARMUP_ITERS = min(round(warmup * scale), solver.MAX_ITER - (warmup < total))
    steps: list[int] = []
    for step in solver.STEPS:
        steps.append(max(round(step * scale), steps[-1] + 1 if steps else 1))
    solver.STEPS = tuple(steps)
    solver.REFERENCE_FRACTION = fraction


def _expand_home(cfg: CfgNode) -> None:
    """Expand the home directory in paths such as ``~/r50.pth``; in a file no shell does it."""
    for key, value in leaves(cfg):
        if isinstance(value, str) and value.startswith("~/"):
            *parents, name = key.split(".")
            reduce(lambda node, part: node[part], parents, cfg)[name] = str(
                Path(value).expanduser()
            )


def with_options(cfg: CfgNode, options: list[str]) -> CfgNode:
    """Return a frozen copy of a config with ``KEY, VALUE`` pairs set."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(options)
    cfg.freeze()
    return cfg


def _merge_file(cfg: CfgNode, content: dict[str, Any], config_file: str) -> set[str]:
    """Merge the content of a config file, and return the keys that it and its bases give."""
    given = CfgNode(content)
    keys = {key for key, _ in leaves(given)}
    _list_names(given)
    try:
        _merge_version(cfg, given, config_file)
    except _DOES_NOT_FIT as error:
        raise UserError(
            f"{_explain(error, cfg)}\nIt is in {config_file} or one of its _BASE_ files."
        ) from error
    return keys


def _list_names(given: CfgNode) -> None:
    """Turn a data set that a file names without brackets into a list of one."""
    section = given.get("DATASETS")
    for name in ("TRAIN", "TEST"):
        if isinstance(section, dict) and name in section:
            section[name] = _as_names(section[name])


def _as_names(value: Any) -> Any:
    """Return the name of one data set as a list; other values, such as text of a list, stay."""
    is_name = isinstance(value, str) and re.match(r"[A-Za-z]", value)
    return (value,) if is_name else value


def _merge_version(cfg: CfgNode, given: CfgNode, config_file: str) -> None:
    version = given.get("VERSION", cfg.VERSION)
    if version == cfg.VERSION:
        cfg.merge_from_other_cfg(_with_floats(cfg, given))
        return
    if version not in range(1, cfg.VERSION):
        raise UserError(f"{config_file} has VERSION {version!r}; expected 1 to {cfg.VERSION}.")
    earlier = downgrade_config(cfg, to_version=version)
    try:
        earlier.merge_from_other_cfg(given)
    except _DOES_NOT_FIT as error:
        key = _unknown_key(error)
        if key is None or not _holds(cfg, key):
            raise
        raise UserError(
            f"{config_file} has VERSION {version}, but the key {key} is of VERSION {cfg.VERSION}.\n"
            f"Set VERSION {cfg.VERSION}, and use the current name of every key."
        ) from error
    converted = upgrade_config(earlier)
    cfg.clear()
    cfg.update(converted)


def _merge_options(cfg: CfgNode, overrides: Overrides) -> None:
    defaults, pairs = dict(leaves(cfg)), override_pairs(overrides)
    forget(cfg, superseded(dict(pairs)))
    idle = without_effect(dict(pairs), "one command or call")
    for key, value in pairs:
        if key in idle:
            continue
        if not (_holds(cfg, key) or cfg.key_is_deprecated(key) or cfg.key_is_renamed(key)):
            raise UserError(f"{_no_such_key(key, cfg)}\nIt was set as {_as_set(key, value)}.")
        if isinstance(value, Mapping) and key not in defaults:
            some = [f"{key}.{name}" for name in value][:3]
            raise UserError(
                f"{key} is a section and cannot be set as a whole. Set its keys one by one: "
                f"{', '.join(some)}."
            )
        is_whole = type(value) is int or (
            isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+", value)
        )
        if is_whole and isinstance(defaults.get(key), float):
            value = float(value)  # yacs refuses an int for a float
        value = _as_names(value) if key in KEYS else value
        try:
            if key in OLD_NAMES:  # merge_from_list would refuse it
                cfg.merge_from_other_cfg(_nested(key, value))
            else:
                cfg.merge_from_list([key, value])
        except _DOES_NOT_FIT as error:
            raise UserError(
                f"{_explain(error, cfg)}\nIt was set as {_as_set(key, value)}."
            ) from error


def _holds(cfg: CfgNode, key: str) -> bool:
    """Say whether a config has a key or section of this dotted name."""
    node: Any = cfg
    for name in key.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return False
        node = node[name]
    return True


def _as_set(key: str, value: Any) -> str:
    return f"{_cut(key)} {_cut(str(value))}"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _nested(key: str, value: Any) -> CfgNode:
    """Return a config that holds one key."""
    for name in reversed(key.split(".")):
        value = CfgNode({name: value})
    return value


def override_pairs(overrides: Overrides) -> list[tuple[str, Any]]:
    """Return the keys of overrides with their values; paths become text.

    Raises:
        UserError: the overrides are not pairs.
    """
    if isinstance(overrides, str | bytes | Set) or not isinstance(overrides, Iterable):
        raise UserError(
            f"The overrides are {shortened(overrides)}; "
            'expected {"KEY": value} or ["KEY", "VALUE"].'
        )
    options = (
        list(chain.from_iterable(overrides.items()))
        if isinstance(overrides, Mapping)
        else list(overrides)
    )
    if len(options) % 2:
        raise UserError(
            "The overrides must be pairs of KEY VALUE, but the last key, "
            f"{shortened(options[-1])}, has no value.\n"
            "Put a value with spaces in quotes, write '' for an empty value, and write no = "
            "between."
        )
    return list(zip(map(str, options[::2]), map(_plain, options[1::2]), strict=True))


def _plain(value: Any) -> Any:
    """Convert a path to text, and numbers and arrays of NumPy and PyTorch to Python's."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.tolist() if hasattr(value, "tolist") else value


def _with_floats(cfg: CfgNode, given: CfgNode) -> CfgNode:
    """Convert integers to floats where the config has floats; yacs refuses an int for a float."""
    for key, value in given.items():
        if isinstance(value, CfgNode) and isinstance(cfg.get(key), CfgNode):
            _with_floats(cfg[key], value)
        elif type(value) is int and isinstance(cfg.get(key), float):
            given[key] = float(value)
    return given


def _unknown_key(error: Exception) -> str | None:
    """Return the key that yacs reports as unknown; None for another error."""
    match = re.search(r"[Nn]on-existent (?:config )?key: (.*)", str(error).strip("'\""), re.DOTALL)
    return match[1] if match else None


def _explain(error: Exception, cfg: CfgNode) -> str:
    key = _unknown_key(error)
    if key is not None:
        return _no_such_key(key, cfg)
    text = str(error).strip("'\"")
    if match := re.search(r"with values \((.*)\) for config key: (\S+)", text, re.DOTALL):
        return _explain_type(match[2], match[1].partition(" vs. ")[2], cfg)
    return f"The config is invalid: {_cut(text)}"


def _explain_type(key: str, given: str, cfg: CfgNode) -> str:
    default = reduce(getattr, key.split("."), cfg)
    if isinstance(default, CfgNode):
        return (
            f"The config is invalid: {key} is {_cut(given)}, but it is a section. Set its keys: "
            f"{', '.join(default)}."
        )
    advice = ""
    if isinstance(default, bool):
        advice = " Write True or False."
    elif isinstance(default, str):
        advice = (
            " For text that looks like a number or a list, write quotes within quotes: "
            f"\"'{_cut(given)}'\"."
        )
    elif isinstance(default, tuple | list):
        advice = f' Write a list, such as "{_as_list(given)}".'
    return (
        f"The config is invalid: {key} is {_cut(given)}, but must be of the type "
        f"{type(default).__name__}, like {default!r}.{advice}"
    )


def _as_list(given: str) -> str:
    """Return the words of a text written as a list; an example if it has no words."""
    words = re.findall(r"[^\s,()\[\]{}'\"‘’“”<>]+", given)[:4] if len(given) <= _SHOWN else []
    quoted = [word if re.fullmatch(r"[-+.\de]*\d[-+.\de]*", word) else repr(word) for word in words]
    return f"({', '.join(quoted or ['1'])},)"


def _no_such_key(key: str, cfg: CfgNode) -> str:
    shown = key if re.fullmatch(r"\S+", key) else repr(key)
    if _holds(cfg, key):
        return (
            f"{shown} is written as one name in the file, but {key.rpartition('.')[0]} is a "
            "section: write its keys indented below it."
        )
    if "=" in key and _holds(cfg, key.partition("=")[0]):
        return f"There is no config key {_cut(shown)}. Write KEY VALUE, without a = between."
    if key == "IMPORTS":
        return "IMPORTS is read from config files only; on a command line write --import PLUGIN."
    plugin = "\nIf a plugin has it, import that: --import my_task.py"
    return f"There is no config key {_cut(shown)}.{_nearest(key, cfg) or plugin}"


def _nearest(key: str, cfg: CfgNode) -> str:
    known = {name.lower(): name for name in _keys(cfg) if name not in OLD_NAMES}
    similar = difflib.get_close_matches(key[:_SHOWN].lower(), list(known), n=3, cutoff=0.5)
    return f" The nearest: {', '.join(known[name] for name in similar)}" if similar else ""


def _keys(node: CfgNode) -> Iterator[str]:
    for key, value in node.items():
        yield key
        if isinstance(value, CfgNode):
            yield from (f"{key}.{inner}" for inner in _keys(value))
