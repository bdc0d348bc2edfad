"""The config of a trained model, from a run folder, a weights file or a model zoo name."""

import os
from pathlib import Path
from typing import NamedTuple, TypeAlias

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from virtex_det.checkpoint import follow_weights
from virtex_det.checkpoint.last import run_weights
from virtex_det.config import Overrides, load_config, override, override_pairs
from virtex_det.config.data_names import open_number
from virtex_det.data.classes import is_detector
from virtex_det.engine.preflight.model import classes_of
from virtex_det.engine.run_folder import CONFIG, check_run_files, check_whole, kept_files
from virtex_det.errors import UserError
from virtex_det.model_zoo import get_config
from virtex_det.model_zoo.catalog import find, list_models
from virtex_det.model_zoo.handler import PREFIX
from virtex_det.modeling.pretraining.image_model import ImageModel

Source: TypeAlias = str | os.PathLike[str] | CfgNode


class Task(NamedTuple):
    """The task of a trained model."""

    name: str  # kind of model
    function: str  # class or tool for this task


DETECTION = Task("a detector", "virtex_det.Detector")
CAPTIONS = Task("a captioning model", "virtex_det.Captioner")
ATTENTION = Task("a LocTexModel or ICMLMModel", "tools/visualize_attention.py")
OTHER = Task("another pretraining model or classifier", "")

_TASKS = {
    "CaptioningModel": CAPTIONS,
    "BicaptioningModel": CAPTIONS,
    "LocCaModel": CAPTIONS,
    "LocTexModel": ATTENTION,
    "ICMLMModel": ATTENTION,
}


def trained_config(
    source: Source,
    config: str | os.PathLike[str] | CfgNode | None = None,
    overrides: Overrides = (),
    *,
    task: Task,
    device: str | None = None,
) -> CfgNode:
    """Return the config of a trained model, with its MODEL.WEIGHTS, if it is a model of the task.

    Args:
        source: a run folder; a weights file, with its config unless it is in the folder of its run;
            a name such as ``virtex://bicaptioning_R_50_L1_H2048``; or a config with MODEL.WEIGHTS.
        config: config of a weights file.
        overrides: config keys to set; they are applied last.
        task: the task that the model must have.
        device: as MODEL.DEVICE; by default the GPU, or the CPU if there is none.

    Raises:
        UserError: the source is invalid, has no trained weights, or is a model of another task.
    """
    keys = dict(override_pairs(overrides)) | ({"MODEL.DEVICE": device} if device else {})
    if isinstance(source, CfgNode):
        cfg = override(source, keys)
    elif not isinstance(source, str | os.PathLike) or not str(source):
        raise UserError(f"{task.function} was given {source!r}; expected {_expected()}.")
    elif str(source).startswith(PREFIX):
        cfg = _of_zoo(str(source), keys, task)
    elif config is not None:
        cfg = _of_file(str(source), config, keys)
    else:
        cfg = _of_run(str(source), keys, task)
    if not cfg.MODEL.WEIGHTS:
        raise UserError(
            f"MODEL.WEIGHTS is empty: {task.function} needs a trained model. Name its weights or "
            "its run."
        )
    _check_task(cfg, task, source)
    return _with_number(follow_weights(cfg))


def _with_number(cfg: CfgNode) -> CfgNode:
    """Return the config with the weights' number of classes where its own is that of the data."""
    key = open_number(cfg)
    if not key:
        return cfg
    classes = classes_of(cfg.MODEL.WEIGHTS)
    if not classes:
        raise UserError(
            f"{key} is 0, the number of the data, and {cfg.MODEL.WEIGHTS} does not name its "
            f"classes.\nSet {key} to their number."
        )
    return override(cfg, {key: len(classes)})


def run_config(run_folder: str | os.PathLike[str], overrides: Overrides = ()) -> CfgNode:
    """Return the config of a run, with the last weights and the vocabulary in its folder.

    Paths are those of the folder now, so a run may be moved; ``config.yaml``, ``vocabulary.model``
    and ``model_final.pth`` are enough.

    Args:
        run_folder: OUTPUT_DIR of a run.
        overrides: config keys to set; they are applied last.

    Raises:
        UserError: the folder is not a run folder, or has no trained weights.
    """
    folder = Path(run_folder)
    check_run_files(folder)
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"{folder} is not a run folder: it has no {CONFIG}. Name the OUTPUT_DIR of a run."
        )
    check_whole(folder / CONFIG)
    keys = dict(override_pairs(overrides))
    own = {key: str(path) for key, path in kept_files(folder).items()}
    if "MODEL.WEIGHTS" not in keys:
        own["MODEL.WEIGHTS"] = run_weights(folder)
    return load_config(folder / CONFIG, own | keys)


def _expected() -> str:
    return f"the OUTPUT_DIR of a run, a weights file with its config, or {PREFIX}NAME"


def _of_run(name: str, keys: dict, task: Task) -> CfgNode:
    """Return the config of a run folder, or of a checkpoint in one."""
    path = Path(name)
    if path.is_dir():
        return run_config(path, keys)
    if path.is_file() and path.with_name(CONFIG).is_file():
        return run_config(path.parent, {"MODEL.WEIGHTS": str(path)} | keys)
    if path.is_file() or "://" in name:
        beside = f", and has no {CONFIG} beside it" if path.is_file() else ""
        raise UserError(
            f"{name} is a file without a config{beside}.\n"
            f"Name its training config: {task.function}({name!r}, 'config.yaml')."
        )
    hint = f" The model zoo has {PREFIX + name}." if name in list_models() else ""
    raise UserError(
        f"There is no run folder or weights file {name}.{hint}\n"
        f"{task.function} takes {_expected()}."
    )


def _of_file(path: str, config: str | os.PathLike[str] | CfgNode, keys: dict) -> CfgNode:
    if (Path(path) / CONFIG).is_file():
        raise UserError(
            f"{path} is a run folder, which has its own config. Leave out {config}, or name a file."
        )
    keys = {"MODEL.WEIGHTS": path} | keys
    return override(config, keys) if isinstance(config, CfgNode) else load_config(config, keys)


def _of_zoo(source: str, keys: dict, task: Task) -> CfgNode:
    record = find(source.removeprefix(PREFIX))
    if task is DETECTION or not record.pretraining_config:
        held = "a pretraining model" if record.pretraining_config else "a backbone only"
        lines = [
            f"{source} is {held} ({record.family}: {record.pretraining}), but {task.function} "
            f"needs {task.name}.",
            f"virtex_det.load_backbone({source!r}) returns its features.",
        ]
        if task is DETECTION:
            lines.append(
                f"To make a detector: tools/train_net.py with MODEL.WEIGHTS {source}; then name "
                "its run."
            )
        raise UserError("\n".join(lines))
    return override(get_config(record.name, trained=True, task="pretraining"), keys)


def _check_task(cfg: CfgNode, task: Task, source: Source) -> None:
    """Refuse a model of another known task."""
    found = _task_of(cfg)
    if found is None or found is task:
        return
    name = cfg.MODEL.WEIGHTS if isinstance(source, CfgNode) else source
    lines = [
        f"{name} is {found.name} ({cfg.MODEL.META_ARCHITECTURE}), but {task.function} needs "
        f"{task.name}."
    ]
    if found.function:
        lines.append(f"Use {found.function}.")
    lines.append("virtex_det.load_backbone returns its features.")
    raise UserError("\n".join(lines))


def _task_of(cfg: CfgNode) -> Task | None:
    """Return the task of a config's model; None if unknown."""
    name = cfg.MODEL.META_ARCHITECTURE
    if name in _TASKS:
        return _TASKS[name]
    if name in META_ARCH_REGISTRY and issubclass(META_ARCH_REGISTRY.get(name), ImageModel):
        return OTHER
    return DETECTION if is_detector(cfg) else None
