"""The run folder: its files, and what a resumed run may not change."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode

from virtex_det.benchmark.costs import COST
from virtex_det.checkpoint.hashing import file_sha256
from virtex_det.checkpoint.last import LAST_CHECKPOINT
from virtex_det.config import get_cfg, leaves, load_config, override, plain_leaves, with_options
from virtex_det.config.data_names import portable_leaves
from virtex_det.config.files import RUN_CONFIG as CONFIG
from virtex_det.config.files import RUN_MARKERS
from virtex_det.config.precision import computes_in_bfloat16
from virtex_det.config.renames import OLD_NAMES
from virtex_det.config.roles import FILES, FIXED, Role, is_read, role_of
from virtex_det.data.skipped import together
from virtex_det.errors import UserError
from virtex_det.files import refuse_special
from virtex_det.plugins import MANIFEST, keep_plugins
from virtex_det.text_files import read_json
from virtex_det.utils import replacing, write_atomically
from virtex_det.yaml_files import read_yaml, shortened

logger = logging.getLogger(__name__)

CLASSES = "classes.json"
LEFT_OUT = "left_out.json"
PAGE = "report.html"
# First and last key of each config that a run writes.
_FIRST_KEY, _LAST_KEY = "CUDNN_BENCHMARK", "VIS_PERIOD"
# Patterns of all files that a run reads or writes at the top of its folder.
_RUN_FILES = (
    LAST_CHECKPOINT,
    CONFIG,
    LEFT_OUT,
    CLASSES,
    MANIFEST,
    COST,
    PAGE,
    "*.pth",
    "metrics.json",
    "results.json*",
    "log.txt*",
    ".lock",
    "load_report.json",
    "environment.txt",
    "stdout.txt",  # of a matrix's run
    "events.out.*",
    *FILES.values(),
)
_INFERENCE = "inference"


def check_run_files(run_folder: str | Path) -> None:
    """Refuse a run folder with a pipe, a device, a folder or a broken link in place of a file.

    Reading a pipe would wait without end; writing through a broken link would fail after training.

    Raises:
        UserError: names it.
    """
    folder = Path(run_folder)
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if not any(fnmatch(path.name, pattern) for pattern in _RUN_FILES):
            continue
        try:
            refuse_special(path, path.stat())
        except (OSError, UserError) as error:
            reason = error if isinstance(error, UserError) else f"{path} is a broken link."
            raise UserError(f"{reason}\nA run keeps a file under that name: remove it.") from error
    inference = folder / _INFERENCE
    if os.path.lexists(inference) and not inference.is_dir():
        raise UserError(
            f"{inference} is not a folder; a run writes its predictions to a folder of that name.\n"
            "Remove it."
        )


def is_run_folder(folder: Path) -> bool:
    """Return whether a folder is that of a run which has begun to train."""
    has_begun = any(any(folder.glob(marker)) for marker in RUN_MARKERS)
    return has_begun and (folder / CONFIG).is_file()


def follow_seed(cfg: CfgNode) -> CfgNode:
    """Return the config with the seed of the run in OUTPUT_DIR, if the config has none."""
    began = read_run_config(cfg.OUTPUT_DIR)
    return with_options(cfg, ["SEED", began["SEED"]]) if cfg.SEED < 0 and "SEED" in began else cfg


def follow_run(cfg: CfgNode, *, only_evaluates: bool) -> CfgNode:
    """Return the config to resume the run in OUTPUT_DIR with.

    Records must describe what was trained: keys of the recipe and of the run (see
    ``config/roles.py``) must not change; all others are applied. Data that are named by where they
    lie may have moved: their content is compared later. An evaluation alone takes SOLVER,
    TEST.PRECISE_BN and MODEL.WEIGHTS from the run, because it does not use them itself.

    Raises:
        UserError: the run began with another value of a key that must not change, or its config is
            damaged or missing.
    """
    began = read_run_config(cfg.OUTPUT_DIR)
    path = Path(cfg.OUTPUT_DIR) / CONFIG
    if not began and not only_evaluates and path.with_name(LAST_CHECKPOINT).exists():
        raise UserError(f"{path}, the config that the run began with, is missing.\n{_PUT_BACK}")
    if only_evaluates:
        # SOLVER.AMP is used by the evaluation, too: it decides whether the model uses bfloat16.
        kept = [] if computes_in_bfloat16(cfg) == _computed_in_bfloat16(began) else ["SOLVER.AMP"]
        cfg = _with_values(cfg, began, "SOLVER", "TEST.PRECISE_BN", "MODEL.WEIGHTS", but=kept)
    now = plain_leaves(cfg)
    names, names_then = portable_leaves(cfg), portable_leaves(began)
    changed = [key for key in names if key in began and names[key] != names_then[key]]
    other = [key for key in changed if _stays(cfg, key)]
    if other:
        lines = [f"  {key} {began[key]}, now {now[key]}" for key in other[:8]]
        lines += [f"  and {len(other) - 8} keys more"] if len(other) > 8 else []
        raise UserError(
            "\n".join([f"The run in {cfg.OUTPUT_DIR} began with other values:", *lines])
            + f"\nTo go on with it, use --config-file {path}; "
            "for other values start a new run in another folder."
        )
    return cfg


def read_run_config(run_folder: str | Path) -> dict[str, Any]:
    """Return the config of a run that can be resumed, by dotted key; empty if there is no such run.

    Raises:
        UserError: the file is damaged.
    """
    path = Path(run_folder) / CONFIG
    if not path.with_name(LAST_CHECKPOINT).exists() or not path.is_file():
        return {}
    try:
        check_whole(path)
        return plain_leaves(load_config(str(path), []))
    except UserError as error:
        raise UserError(
            f"{path}, the config that the run began with, is damaged.\n{error}\n{_PUT_BACK}"
        ) from error


class Beginning(NamedTuple):
    """What a run began with, according to its folder.

    Attributes:
        config: values by dotted key, under today's names of the keys.
        sha256: of the weights; "" if the folder does not say.
    """

    config: dict[str, Any]
    sha256: str


def read_beginning(run_folder: str | Path) -> Beginning:
    """Return what a run began with.

    The config is only parsed: to build it, as ``read_run_config`` does, takes many times longer.

    Raises:
        UserError: its config is missing, or a file is damaged.
    """
    path = Path(run_folder) / CONFIG
    try:
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise UserError(f"it holds {shortened(content)}, not keys with values.")
        config = _under_todays_names(plain_leaves(content))
    except UserError as error:
        raise UserError(
            f"{path} is damaged: {error}\nMove its folder away to do the run again."
        ) from error
    return Beginning(config, read_start(run_folder).get("sha256", ""))


def _under_todays_names(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a config that an earlier version may have written, by dotted key."""
    if OLD_NAMES.keys().isdisjoint(values):
        return values
    defaults = dict(leaves(get_cfg()))
    known = {key: value for key, value in values.items() if key in defaults or key in OLD_NAMES}
    renamed = [new for old in OLD_NAMES.keys() & known.keys() for new in OLD_NAMES[old]]
    # The device of the run need not be here.
    config = plain_leaves(override(get_cfg(), {**known, "MODEL.DEVICE": "cpu"}))
    return {key: config[key] for key in {*known, *renamed} if key in config}


def other_model_keys(cfg: CfgNode, weights: str) -> list[str]:
    """Return the model's keys that differ from the config of the run in whose folder weights are.

    Tensors of the same shapes fit a model of another function, such as one with more attention
    heads or other anchors.

    Args:
        cfg: config to evaluate with.
        weights: file or address.
    """
    path = Path(weights).with_name(CONFIG) if Path(weights).is_file() else None
    try:
        content = read_yaml(path) if path is not None and path.is_file() else {}
        began = plain_leaves(content) if isinstance(content, dict) else {}
    except (UserError, TypeError, ValueError):  # damaged, and not needed for the evaluation
        return []
    return [
        f"{key} {began[key]}, and the config has {value}"
        for key, value in plain_leaves(cfg).items()
        if key.startswith("MODEL.") and key in began and began[key] != value
        if role_of(key) in (Role.KIND, Role.RECIPE) and is_read(cfg, key)
    ]


def check_whole(path: str | Path) -> None:
    """Refuse a run's config that is cut short: its missing keys would have their defaults.

    Raises:
        UserError: the last key is missing.
    """
    content = read_yaml(path)
    if isinstance(content, dict) and _FIRST_KEY in content and _LAST_KEY not in content:
        raise UserError(f"{path} is cut short: its last key, {_LAST_KEY}, is missing.")


_PUT_BACK = (
    "Put it back from a copy; or start the run's first command with another OUTPUT_DIR, and copy "
    "the config.yaml that it writes there."
)


def keep_config(cfg: CfgNode) -> None:
    """Write the config of the run that is trained, and the plugins that it needs."""
    keep_plugins(cfg.OUTPUT_DIR)
    write_atomically(Path(cfg.OUTPUT_DIR) / CONFIG, cfg.dump())


def _with_values(
    cfg: CfgNode, began: Mapping[str, Any], *prefixes: str, but: Sequence[str] = ()
) -> CfgNode:
    """Return the config with the run's own values of all keys below the prefixes."""
    options = []
    for key, _ in leaves(cfg):
        if key in began and _is_below(key, prefixes) and not _is_below(key, but):
            options += [key, began[key]]
    return with_options(cfg, options)


def _is_below(key: str, prefixes: Sequence[str]) -> bool:
    return f"{key}.".startswith(tuple(f"{prefix}." for prefix in prefixes))


def _computed_in_bfloat16(began: Mapping[str, Any]) -> bool:
    return bool(began.get("SOLVER.AMP.ENABLED")) and began.get("SOLVER.AMP.DTYPE") == "bfloat16"


def _stays(cfg: CfgNode, key: str) -> bool:
    """Return whether a value other than the run's own is refused."""
    if key == "MODEL.WEIGHTS" and _are_same_weights(cfg):
        return False
    return role_of(key) in FIXED and is_read(cfg, key)


def _are_same_weights(cfg: CfgNode) -> bool:
    """Return whether MODEL.WEIGHTS is another name of the file from which the run started."""
    path, report = Path(cfg.MODEL.WEIGHTS), read_start(cfg.OUTPUT_DIR)
    return path.is_file() and file_sha256(path) == report.get("sha256")


def read_start(run_folder: str | Path) -> dict[str, Any]:
    """Return path, sha256 and format of the weights that a run started from; empty if unknown.

    Raises:
        UserError: the file is damaged.
    """
    path = Path(run_folder) / "load_report.json"
    if not path.is_file():
        return {}
    try:
        report = read_json(path)
        if not isinstance(report, dict):
            raise UserError(f"it holds {report!r:.80}; expected an object")
        return start_of(report)
    except (UserError, KeyError) as error:
        raise UserError(
            f"{path} is damaged ({error}). It names the weights that the run started from, which "
            "each record repeats.\n"
            "Put it back from a copy of the folder, or delete it: records then name no weights."
        ) from error


def start_of(report: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of a load report that records keep."""
    start = {key: report[key] for key in ("path", "sha256", "format")}
    text_encoder = report.get("text_encoder", "")  # reports of earlier versions have none
    return start | ({"text_encoder": text_encoder} if text_encoder else {})


def follow_kept_files(cfg: CfgNode, *, resume: bool) -> CfgNode:
    """Return the config with the run folder's copies of files that are gone, as after a move.

    Args:
        cfg: stays unchanged.
        resume: the run goes on, so each file must equal the run's copy.

    Raises:
        UserError: a file differs from the copy.
    """
    moved: list[str] = []
    for key, own in kept_files(cfg.OUTPUT_DIR).items():
        name = reduce(getattr, key.split("."), cfg)
        if name and not Path(name).exists():
            moved += [key, str(own)]
        elif resume and Path(name).is_file() and Path(name).read_bytes() != own.read_bytes():
            raise UserError(
                f"{key} {name} differs from {own}, which the run began with.\n"
                f"To go on with the run, set {key} {own}, or put the right file back if that copy "
                "is damaged. To use the other file, start a new run."
            )
    return with_options(cfg, moved)


def kept_files(run_folder: str | Path) -> dict[str, Path]:
    """Return the run's copies of files in its folder, by config key."""
    paths = {key: Path(run_folder) / name for key, name in FILES.items()}
    return {key: path for key, path in paths.items() if path.is_file()}


def keep_files(cfg: CfgNode) -> None:
    """Copy the tokenizer and similar files into the run folder, so that the run can be moved."""
    for key, name in FILES.items():
        named, own = Path(reduce(getattr, key.split("."), cfg)), Path(cfg.OUTPUT_DIR) / name
        if named.is_file() and not (own.is_file() and own.read_bytes() == named.read_bytes()):
            with replacing(own) as unfinished:
                unfinished.write_bytes(named.read_bytes())


def keep_classes(run_folder: str | Path, classes: Sequence[str]) -> None:
    """Write the class names of the run's training data, in the order of the class numbers."""
    write_atomically(
        Path(run_folder) / CLASSES, json.dumps(list(classes), ensure_ascii=False, indent=1) + "\n"
    )


def keep_left_out(
    run_folder: str | Path, left_out: Mapping[str, Sequence[str]], *, goes_on: bool
) -> None:
    """Write which images training could not use, by reason; no file where it used all.

    Args:
        run_folder: OUTPUT_DIR of the run.
        left_out: names by reason.
        goes_on: the run was resumed; the names that its earlier part wrote stay.
    """
    path = Path(run_folder) / LEFT_OUT
    earlier = _read_left_out(path) if goes_on else {}
    if left_out or earlier:
        text = json.dumps(together([earlier, left_out]), ensure_ascii=False, indent=1)
        write_atomically(path, text + "\n")
    else:  # an earlier start in the folder may have left one
        path.unlink(missing_ok=True)


def _read_left_out(path: Path) -> dict[str, list[str]]:
    """Return the skipped images of the run's earlier part; none if the file is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return {str(reason): [str(name) for name in names] for reason, names in content.items()}
    except (ValueError, AttributeError, TypeError):
        logger.warning(
            "%s is damaged. It is written anew, without the images that the run skipped earlier",
            path,
        )
        return {}


def read_classes(run_folder: str | Path) -> tuple[str, ...]:
    """Return the names of the classes that a run was trained on, in the order of their numbers.

    Args:
        run_folder: OUTPUT_DIR of the run.

    Returns:
        No names if they are unknown, as for a run of an earlier version or a model without classes.

    Raises:
        UserError: the file is damaged.
    """
    path = Path(run_folder) / CLASSES
    if not path.is_file():
        return ()
    try:
        names = read_json(path)
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}.\n{_DELETE_CLASSES}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"{path} holds {names!r:.80}; expected a list of class names.\n{_DELETE_CLASSES}"
        )
    return tuple(names)


_DELETE_CLASSES = "Delete it; the run's checkpoints hold the names, too."
