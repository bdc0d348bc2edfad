"""The folder of a run: what it keeps, and what a run may not change when it goes on."""

import json
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import yaml
from detectron2.config import CfgNode

from virtex_det.config import leaves, with_options
from virtex_det.config.yaml_files import read_config_file
from virtex_det.errors import UserError
from virtex_det.utils import replacing, write_atomically

CLASSES = "classes.json"
RUN_MARKERS = ("last_checkpoint", "model_final.pth", "metrics.json")
# What a run reads besides its data, by key of INPUT.CAPTION: kept in its folder under these names.
KEPT_FILES = {"TOKENIZER": "vocabulary.model", "CONCEPTS": "concepts.json", "CLUSTERS": "clusters.json"}

# What a run cannot change when it goes on.
OF_THE_RUN = {
    *("SEED", "DATASETS.TRAIN", "DATASETS.TRAIN_FRACTION", "DATASETS.SUBSET_SEED", "DATASETS.SUBSET_STRATIFIED"),
    *("DATASETS.SUBSET_FILE", "DATASETS.CAPTIONS_PER_IMAGE"),
}


def follow_run(cfg: CfgNode, *, only_evaluates: bool) -> CfgNode:
    """Return the config for going on with the run in OUTPUT_DIR, whose records have to tell what was trained.

    Evaluation alone trains by no SOLVER: the run's own holds.

    Raises:
        UserError: the run began with other training data or another seed.
    """
    own = Path(cfg.OUTPUT_DIR) / "config.yaml"
    if not own.with_name("last_checkpoint").exists() or not own.is_file():
        return cfg
    began = CfgNode(read_config_file(own))
    values = dict(leaves(began))
    other = [
        (key, value)
        for key, value in leaves(CfgNode(yaml.safe_load(cfg.dump())))
        if key in OF_THE_RUN and values.get(key, value) != value
    ]
    if other:
        raise UserError(
            f"The run in {own.parent} began with\n"
            + "\n".join(f"  {key} {values[key]}, and the config has {value}" for key, value in other)
            + f"\nGo on as it began, which --config-file {own} holds whole, or start another run in another folder."
        )
    if only_evaluates:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.SOLVER.merge_from_other_cfg(CfgNode({key: began.SOLVER[key] for key in cfg.SOLVER if key in began.SOLVER}))
        cfg.freeze()
    return cfg


def follow_kept_files(cfg: CfgNode, *, resume: bool) -> CfgNode:
    """Return the config with the run folder's own files where those that it names are gone, as in a moved run.

    Args:
        cfg: stays as it is.
        resume: the run goes on, so each file has to be the one that it began with.

    Raises:
        UserError: one is another.
    """
    moved: list[str] = []
    for key, own in kept_files(cfg.OUTPUT_DIR).items():
        name = reduce(getattr, key.split("."), cfg)
        if name and not Path(name).exists():
            moved += [key, str(own)]
        elif resume and Path(name).is_file() and Path(name).read_bytes() != own.read_bytes():
            raise UserError(
                f"{key} {name} is another file than {own}, which the run began with.\n"
                f"To go on with the run, set {key} {own}; to use the other one, start a new run."
            )
    return with_options(cfg, moved)


def kept_files(run_folder: str | Path) -> dict[str, Path]:
    """Return which of a run's own files its folder holds, by config key."""
    paths = {f"INPUT.CAPTION.{key}": Path(run_folder) / name for key, name in KEPT_FILES.items()}
    return {key: path for key, path in paths.items() if path.is_file()}


def keep_files(cfg: CfgNode) -> None:
    """Copy the tokenizer and its like into the run folder, so that the run is whole wherever it is moved."""
    for key, name in KEPT_FILES.items():
        named = Path(cfg.INPUT.CAPTION[key])
        if named.is_file():
            with replacing(Path(cfg.OUTPUT_DIR) / name) as unfinished:
                unfinished.write_bytes(named.read_bytes())


def keep_classes(run_folder: str | Path, classes: Sequence[str]) -> None:
    """Write the names of the classes that a run is trained on, in the order of their numbers."""
    write_atomically(Path(run_folder) / CLASSES, json.dumps(list(classes), ensure_ascii=False, indent=1) + "\n")


def read_classes(run_folder: str | Path) -> tuple[str, ...]:
    """Return the class names that a run was trained on: the number of a predicted class is a place in them.

    Args:
        run_folder: OUTPUT_DIR of the run.

    Returns:
        No names where the folder does not say, as of a run of an earlier version or a model without classes.

    Raises:
        UserError: the file is damaged.
    """
    path = Path(run_folder) / CLASSES
    if not path.is_file():
        return ()
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}. Delete it; checkpoints of the run have the names too.") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} holds no list of class names. Delete it; checkpoints of the run have the names too.")
    return tuple(names)
