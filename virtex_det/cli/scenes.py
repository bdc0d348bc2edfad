"""Write the built-in data: images of coloured shapes with masks, boxes, captions and narratives.

Annotations are in COCO's format. Narratives, captions spoken while a pointer moves over the image,
are in the format of Localized Narratives.

python tools/generate_scenes.py
python tools/generate_scenes.py --output datasets/scenes --train 1000 --val 500 \\
    --unlabelled 10000 --image-size 128
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from virtex_det.cli.parsers import command_parser
from virtex_det.data.datasets import datasets_root, generate_scenes
from virtex_det.data.datasets.scenes import FOLDERS
from virtex_det.escaping import log_visibly


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate scenes as the command line says."""
    options = _parser().parse_args(arguments)
    log_visibly(logging.INFO, "%(message)s")
    generate_scenes(
        options.output or datasets_root() / FOLDERS[options.vocabulary],
        num_train=options.train,
        num_val=options.val,
        num_unlabelled=options.unlabelled,
        image_size=options.image_size,
        captions_per_image=options.captions,
        vocabulary=options.vocabulary,
        seed=options.seed,
        num_workers=options.workers,
        overwrite=options.overwrite,
    )


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    default = datasets_root() / FOLDERS["names"]
    parser.add_argument(
        "--output",
        type=Path,
        help=f"folder to write (default: {default}; with synonyms {FOLDERS['synonyms']} beside it)",
    )
    parser.add_argument(
        "--train", type=int, default=300, help="labelled training images (default: %(default)s)"
    )
    parser.add_argument(
        "--val", type=int, default=200, help="labelled validation images (default: %(default)s)"
    )
    parser.add_argument(
        "--unlabelled",
        type=int,
        default=3000,
        help="images with captions only (default: %(default)s)",
    )
    parser.add_argument(
        "--image-size", type=int, default=96, help="side in pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--captions", type=int, default=5, help="captions per image (default: %(default)s)"
    )
    parser.add_argument(
        "--vocabulary",
        choices=sorted(FOLDERS),
        default="names",
        help="what captions call the shapes: names of the classes, or synonyms that share no word "
        "with them (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed gives other scenes (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=None, help="processes (default: one per core)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace scenes of other settings in the folder"
    )
    return parser
