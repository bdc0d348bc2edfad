"""From command line to a frozen config, a prepared run folder, a logger and a seed."""

import argparse
import difflib
import logging
import re
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, default_argument_parser
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from virtex_det.checkpoint import follow_weights
from virtex_det.config import get_cfg
from virtex_det.data.datasets import check_datasets, check_num_classes
from virtex_det.data.wordpiece import is_sentencepiece
from virtex_det.engine.performance import tune_process
from virtex_det.errors import UserError
from virtex_det.utils import replacing, write_atomically

RUN_MARKERS = ("last_checkpoint", "model_final.pth", "metrics.json")
# What a run reads besides its data, by key of INPUT.CAPTION: kept in its folder under these names.
KEPT_FILES = {"TOKENIZER": "vocabulary.model", "CONCEPTS": "concepts.json", "CLUSTERS": "clusters.json"}

# What a run cannot change when it goes on.
OF_THE_RUN = {
    *("SEED", "DATASETS.TRAIN", "DATASETS.TRAIN_FRACTION", "DATASETS.SUBSET_SEED", "DATASETS.SUBSET_STRATIFIED"),
    *("DATASETS.SUBSET_FILE", "DATASETS.CAPTIONS_PER_IMAGE"),
}

SENTENCEPIECE_MODELS = ("BicaptioningModel", "CaptioningModel", "MaskedLanguageModel", "TokenClassificationModel")


def argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """Detectron2's own arguments: --config-file, --num-gpus, --resume, --eval-only, KEY VALUE and the rest."""
    return default_argument_parser(epilog)


def setup(args: argparse.Namespace) -> CfgNode:
    """Build the config, check the run folder, start logging and seed the process.

    Args:
        args: what ``argument_parser()`` parsed.

    Returns:
        The full config, frozen; also written to ``config.yaml`` in a new run folder, beside the tokenizer and its like.

    Raises:
        UserError: for a config or a run folder that cannot be meant.
    """
    cfg = follow_weights(load_config(args.config_file, args.opts), resume=args.resume)
    if args.resume or args.eval_only:
        cfg = follow_kept_files(cfg, resume=args.resume)
    if args.resume:
        cfg = follow_run(cfg, only_evaluates=args.eval_only)
    if not args.eval_only:
        cfg = scale_to_processes(cfg)
    check_schedule(cfg)
    check_devices(cfg)
    check_tokenizer(cfg)
    check_data(cfg, [*cfg.DATASETS.TEST] if args.eval_only else [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
    if not cfg.OUTPUT_DIR:
        raise UserError("OUTPUT_DIR is empty: name the folder of the run, e.g. OUTPUT_DIR output/run.")
    run_folder = Path(cfg.OUTPUT_DIR)
    is_run = any((run_folder / marker).exists() for marker in RUN_MARKERS)
    if is_run and not (args.resume or args.eval_only):
        raise UserError(
            f"The output folder {run_folder} holds another run.\n"
            "Go on with that run with --resume, or name a new folder with OUTPUT_DIR PATH."
        )
    comm.synchronize()  # a rank must not find the folder that a faster one has just filled

    run_folder.mkdir(parents=True, exist_ok=True)
    rank = comm.get_rank()
    for name in ("fvcore", "detectron2", "virtex_det"):
        setup_logger(str(run_folder), distributed_rank=rank, name=name, abbrev_name=name.replace("detectron2", "d2"))
    logger = logging.getLogger("virtex_det")
    logger.info(f"Command line: {vars(args)}")
    _log_schedule(cfg)
    if comm.is_main_process() and not (is_run and args.eval_only):
        write_atomically(run_folder / "config.yaml", cfg.dump())
        write_atomically(run_folder / "environment.txt", collect_env_info())
        _keep_files(cfg)
        logger.info(f"The full config and the environment are in {run_folder}: config.yaml, environment.txt")

    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK and not args.eval_only
    tune_process()
    return cfg


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
    except (KeyError, AssertionError, ValueError, TypeError) as error:
        raise UserError(_explain(error, cfg)) from error
    except (yaml.YAMLError, OSError) as error:
        raise UserError(f"{config_file} or one of its _BASE_ files cannot be read as plain YAML: {error}") from error
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


def scale_to_processes(cfg: CfgNode) -> CfgNode:
    """Return the config for as many processes as there are, scaled by Detectron2's rule from REFERENCE_WORLD_SIZE.

    Here, so that the run folder's config and every record hold what is trained.

    Raises:
        UserError: the batch cannot be shared by REFERENCE_WORLD_SIZE processes.
    """
    batch, reference = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.REFERENCE_WORLD_SIZE
    if reference < 0 or (reference and batch % reference):
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {batch} cannot be shared by SOLVER.REFERENCE_WORLD_SIZE {reference} processes.\n"
            "Set the number of processes that the batch is meant for, or 0 to keep it whatever their number."
        )
    return DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())


def follow_run(cfg: CfgNode, *, only_evaluates: bool) -> CfgNode:
    """Return the config for going on with the run in OUTPUT_DIR, whose records have to tell what was trained.

    Evaluation alone trains by no SOLVER: the run's own holds.

    Raises:
        UserError: the run began with other training data or another seed.
    """
    own = Path(cfg.OUTPUT_DIR) / "config.yaml"
    if not own.with_name("last_checkpoint").exists() or not own.is_file():
        return cfg
    began = CfgNode(yaml.safe_load(own.read_text()))
    values = dict(_leaves(began))
    other = [
        (key, value)
        for key, value in _leaves(CfgNode(yaml.safe_load(cfg.dump())))
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


def with_options(cfg: CfgNode, options: list[str]) -> CfgNode:
    """Return a frozen copy of a config with ``KEY, VALUE`` pairs set."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(options)
    cfg.freeze()
    return cfg


def check_schedule(cfg: CfgNode) -> None:
    """Refuse a warm-up that does not end before training does, as it would fail at the last step, and no training."""
    warmup, total = cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.MAX_ITER
    if total < 1 or cfg.SOLVER.BASE_LR < 0:
        raise UserError(
            f"SOLVER.MAX_ITER is {total} and SOLVER.BASE_LR {cfg.SOLVER.BASE_LR}: a schedule needs one iteration at "
            "least and a rate that is not negative.\nTo evaluate without training use --eval-only."
        )
    if warmup >= total:
        raise UserError(
            f"SOLVER.WARMUP_ITERS is {warmup} and SOLVER.MAX_ITER {total}: warm-up has to end before training does.\n"
            f"For a run this short set SOLVER.WARMUP_ITERS {total // 10}."
        )


def check_data(cfg: CfgNode, names: Sequence[str]) -> None:
    """Refuse data sets that are not there, and a detector with another number of classes than they have."""
    check_datasets(names)
    if cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN":
        for name in names:
            check_num_classes(name, cfg.MODEL.ROI_HEADS.NUM_CLASSES)


def check_tokenizer(cfg: CfgNode) -> None:
    """Refuse BERT's vocabulary for VirTex's tasks, to which the special tokens are the ids 0 to 3."""
    model, tokenizer = cfg.MODEL.META_ARCHITECTURE, cfg.INPUT.CAPTION.TOKENIZER
    if model in SENTENCEPIECE_MODELS and not is_sentencepiece(tokenizer):
        raise UserError(
            f"{model} reads a SentencePiece vocabulary, and INPUT.CAPTION.TOKENIZER {tokenizer} is none.\n"
            "Set it to a *.model file; tools/build_vocabulary.py makes one."
        )


def check_devices(cfg: CfgNode) -> None:
    """Refuse a norm that PyTorch cannot run: SyncBatchNorm over several processes needs GPUs."""
    nodes = ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")
    clashing = [f"MODEL.{node}.NORM" for node in nodes if cfg.MODEL[node].NORM == "SyncBN"]
    if cfg.MODEL.DEVICE == "cpu" and comm.get_world_size() > 1 and clashing:
        raise UserError(
            "PyTorch's SyncBatchNorm over several processes needs GPUs, and MODEL.DEVICE is cpu.\n"
            "Run one process, or set " + " ".join(f"{key} naiveSyncBN" for key in clashing)
        )


def _keep_files(cfg: CfgNode) -> None:
    """Copy the tokenizer and its like into the run folder, so that the run is whole wherever it is moved."""
    for key, name in KEPT_FILES.items():
        named = Path(cfg.INPUT.CAPTION[key])
        if named.is_file():
            with replacing(Path(cfg.OUTPUT_DIR) / name) as unfinished:
                unfinished.write_bytes(named.read_bytes())


def _log_schedule(cfg: CfgNode) -> None:
    solver = cfg.SOLVER
    if solver.REFERENCE_FRACTION:
        logging.getLogger("virtex_det").info(
            f"Schedule in proportion to DATASETS.TRAIN_FRACTION {cfg.DATASETS.TRAIN_FRACTION}: SOLVER.MAX_ITER "
            f"{solver.MAX_ITER}, STEPS {solver.STEPS}, WARMUP_ITERS {solver.WARMUP_ITERS}"
        )


def _merge_file(cfg: CfgNode, config_file: str) -> None:
    given = CfgNode(CfgNode.load_yaml_with_base(config_file, allow_unsafe=False))
    if given.get("VERSION", cfg.VERSION) == cfg.VERSION:
        cfg.merge_from_other_cfg(_with_floats(cfg, given))
    else:
        cfg.merge_from_file(config_file, allow_unsafe=False)  # which converts the configs of earlier versions


def _with_floats(cfg: CfgNode, given: CfgNode) -> CfgNode:
    """Make floats of whole numbers where a config holds floats; yacs takes them for another type."""
    for key, value in given.items():
        if isinstance(value, CfgNode) and isinstance(cfg.get(key), CfgNode):
            _with_floats(cfg[key], value)
        elif type(value) is int and isinstance(cfg.get(key), float):
            given[key] = float(value)
    return given


def _with_float_options(cfg: CfgNode, options: list[str]) -> list[Any]:
    floats = {key for key, value in _leaves(cfg) if isinstance(value, float)}
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


def _leaves(node: CfgNode) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from ((f"{key}.{inner}", leaf) for inner, leaf in _leaves(value))
        else:
            yield key, value
