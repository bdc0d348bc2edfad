"""Pretrain on captions, train detectors, and evaluate them.

    CPU, or one GPU:  python tools/train_net.py --config-file configs/detectron2/scenes_segm.yaml
    8 GPUs:           python tools/train_net.py --num-gpus 8 \\
                          --config-file configs/detectron2/coco_segm_default_init_2x.yaml \\
                          MODEL.WEIGHTS bicaptioning_R_50_L1_H2048.pth OUTPUT_DIR output/coco_segm
    go on:            add --resume
    evaluate:         add --eval-only, with MODEL.WEIGHTS or --resume
    several machines: add --num-machines, --machine-rank and --dist-url as in Detectron2, or start
                      under torchrun
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from detectron2.utils import comm

from virtex_det.engine import Trainer, argument_parser, evaluate, launch, setup, watching_each_other
from virtex_det.engine.run_folder import is_run_folder

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train or evaluate in as many processes as the command line asks for."""
    launch(train, argument_parser(__doc__).parse_args(arguments))


def train(args: argparse.Namespace) -> None:
    """Train, or evaluate with ``--eval-only``, in one process."""
    cfg = setup(args)
    with watching_each_other(cfg.SOLVER.PROCESS_TIMEOUT):
        if args.eval_only:
            evaluate(cfg, resume=args.resume)
        else:
            trainer = Trainer(cfg)
            trainer.resume_or_load(resume=args.resume)
            trainer.train()
    if comm.is_main_process() and is_run_folder(Path(cfg.OUTPUT_DIR)):
        write_page(cfg.OUTPUT_DIR, cfg.DATASETS.TEST)


def write_page(run_folder: str | Path, datasets: Sequence[str] = ()) -> None:
    """Write the page of a run that is done; whatever fails here, the run has succeeded.

    Args:
        run_folder: OUTPUT_DIR of the run.
        datasets: names of the data that it is evaluated on, which may have moved since it began.
    """
    try:
        # Loads Matplotlib, which training does not need.
        from virtex_det.run_page.page import write_run_page

        page = write_run_page(run_folder, datasets=datasets)
    except Exception as error:
        logger.warning(f"The run is done, but its page is not written: {error}")
        return
    logger.info("\n".join([f"The run on one page: {page.path}", *page.missing]))
