"""The start of a run: frozen config from the command line, run folder, logger and seed."""

import argparse
import logging
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from virtex_det.benchmark.records import read_records
from virtex_det.checkpoint import follow_weights
from virtex_det.checkpoint.compatibility import check_start
from virtex_det.checkpoint.last import LAST_CHECKPOINT, adopt_last
from virtex_det.config import load_config
from virtex_det.config.help import key_help
from virtex_det.data.following import follow_data
from virtex_det.data.vocabulary import with_vocabulary_size
from virtex_det.engine.lock import keep_locked
from virtex_det.engine.performance import tune_process
from virtex_det.engine.preflight import check_data, check_schedule, check_settings, check_tokenizer
from virtex_det.engine.results import check_records
from virtex_det.engine.run_folder import (
    RUN_MARKERS,
    check_run_files,
    follow_kept_files,
    follow_run,
    follow_seed,
    keep_config,
    keep_files,
)
from virtex_det.engine.trained_config import as_trained
from virtex_det.errors import UserError
from virtex_det.escaping import VisibleText
from virtex_det.files import check_output_folder
from virtex_det.plugins import add_import_option, check_imported, imported, refuse_changed
from virtex_det.utils import sweep, write_atomically
from virtex_det_commands import as_called

_visible_text = VisibleText()


def argument_parser(description: str | None = None) -> argparse.ArgumentParser:
    """Return a parser of Detectron2's arguments: --config-file, --resume, KEY VALUE and the rest.

    Args:
        description: text of ``-h`` before the arguments; the main config keys follow them.
    """
    parser = default_argument_parser(as_called(key_help()))
    parser.description = as_called(description or "")
    add_import_option(parser)
    return parser


def setup(args: argparse.Namespace) -> CfgNode:
    """Build the config, check the run folder, start logging and seed the process.

    Args:
        args: parsed by ``argument_parser()``.

    Returns:
        The full config, frozen. A new run folder gets it as ``config.yaml``, with copies of the
        tokenizer and of similar files.

    Raises:
        UserError: the config is invalid, or the run folder holds another run.
    """
    cfg, goes_on = _checked_config(args)
    run_folder = Path(cfg.OUTPUT_DIR)
    is_run = any(any(run_folder.glob(marker)) for marker in RUN_MARKERS)
    has_records_of_training = not all(record.evaluated for record in read_records(run_folder))
    if (is_run or has_records_of_training) and not (args.resume or args.eval_only):
        raise UserError(
            f"The output folder {run_folder} holds another run.\n"
            "Go on with that run with --resume, or name a new folder with OUTPUT_DIR PATH."
        )
    check_output_folder(run_folder)
    # A slow rank must check the folder before a faster one fills it.
    comm.synchronize()

    run_folder.mkdir(parents=True, exist_ok=True)
    rank = comm.get_rank()
    if comm.is_main_process() and not args.eval_only:
        keep_locked(run_folder)
        for folder in (run_folder, *run_folder.glob("inference/*")):
            sweep(folder)
    _start_logging(run_folder, rank)
    logger = logging.getLogger("virtex_det")
    logger.info(f"Command line: {vars(args)}")
    for plugin in imported():
        logger.info(f"Plugin {plugin.name}, {plugin.asked}, sha256 {plugin.sha256}")
    _log_schedule(cfg)
    begins = not (goes_on or args.eval_only)
    # A resumed run keeps the files that it has until it trains.
    if comm.is_main_process() and (begins or not is_run):
        keep_config(cfg)
        write_atomically(run_folder / "environment.txt", collect_env_info())
        keep_files(cfg)
        logger.info(
            f"The full config and the environment are in {run_folder}: config.yaml, environment.txt"
        )

    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK and not args.eval_only
    tune_process()
    return cfg


def _checked_config(args: argparse.Namespace) -> tuple[CfgNode, bool]:
    """Return the full config, and whether its run goes on from a checkpoint."""
    cfg = load_config(args.config_file, args.opts)
    if cfg.OUTPUT_DIR:
        check_run_files(cfg.OUTPUT_DIR)
    if args.resume and cfg.OUTPUT_DIR:
        adopt_last(cfg.OUTPUT_DIR)
    check_start(cfg, resume=args.resume)
    cfg = follow_weights(cfg, resume=args.resume)
    goes_on = args.resume and (Path(cfg.OUTPUT_DIR) / LAST_CHECKPOINT).exists()
    if goes_on:
        check = check_imported if args.eval_only else refuse_changed
        check(cfg.OUTPUT_DIR)
    if goes_on or args.eval_only:  # files of a failed start are replaced
        cfg = follow_kept_files(cfg, resume=goes_on)
    if args.resume:
        cfg = follow_seed(cfg)
    check_tokenizer(cfg)
    if args.eval_only:
        cfg = follow_data(with_vocabulary_size(cfg), trains=False)
    else:
        cfg = as_trained(cfg)
    if args.resume:
        cfg = follow_run(cfg, only_evaluates=args.eval_only)
    if goes_on and not args.eval_only:
        check_records(cfg)
    if not args.eval_only:
        check_schedule(cfg)
    check_settings(cfg, trains=not args.eval_only)
    check_data(
        cfg, [*cfg.DATASETS.TEST] if args.eval_only else [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    )
    if not cfg.OUTPUT_DIR:
        raise UserError(
            "OUTPUT_DIR is empty: name the folder of the run, e.g. OUTPUT_DIR output/run."
        )
    return cfg, goes_on


def _start_logging(run_folder: Path, rank: int) -> None:
    for name in ("fvcore", "detectron2", "virtex_det"):
        log = setup_logger(
            str(run_folder),
            distributed_rank=rank,
            name=name,
            abbrev_name=name.replace("detectron2", "d2"),
        )
        for handler in log.handlers:
            handler.addFilter(_visible_text)


def _log_schedule(cfg: CfgNode) -> None:
    solver = cfg.SOLVER
    if solver.REFERENCE_FRACTION:
        logging.getLogger("virtex_det").info(
            f"Schedule in proportion to DATASETS.TRAIN_FRACTION {cfg.DATASETS.TRAIN_FRACTION}: "
            f"SOLVER.MAX_ITER {solver.MAX_ITER}, STEPS {solver.STEPS}, WARMUP_ITERS "
            f"{solver.WARMUP_ITERS}"
        )
