"""Write a page about data: counts, sizes, oddities, ground truth and augmented samples.

    python tools/show_data.py yolo:data.yaml:train yolo:data.yaml:val --output data.html
with the augmentation and the classes of a config:
    python tools/show_data.py coco:train.json:images --config-file run.yaml --output data.html

It has all that tools/check_data.py prints, and is one file.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from virtex_det.cli.parsers import add_data, as_classes, command_parser, positive
from virtex_det.config import load_config
from virtex_det.data.datasets.class_rules import as_rules
from virtex_det.errors import UserError
from virtex_det.escaping import say
from virtex_det.files import check_output
from virtex_det.own_data.look import divide, look_at
from virtex_det.own_data.page import write_data_page


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page of the data sets that the command line names."""
    options = _parser().parse_args(arguments)
    check_output(options.output)
    if options.output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {options.output} is not the name of a page; expected FILE.html.")
    rules = as_classes(options.classes)
    if options.config_file and not rules:
        rules = as_rules(load_config(options.config_file).DATASETS.CLASSES)
    look = look_at(*divide(options.data, options.val), rules)
    write_data_page(
        options.output,
        look,
        config_file=options.config_file,
        images=options.images,
        seed=options.seed,
    )
    if look.problems:
        say(f"{len(look.problems)} problem(s): a training would not begin. The page has them.")
    say(f"written: {options.output}")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    add_data(parser)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE.html", help="page to write"
    )
    parser.add_argument(
        "--config-file",
        default="",
        metavar="FILE",
        help="config whose augmentation and classes are shown (default: Mask R-CNN FPN's)",
    )
    parser.add_argument(
        "--images",
        type=positive,
        default=12,
        metavar="N",
        help="pictures of each kind and data set (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="chooses the images (default: 0)"
    )
    return parser
