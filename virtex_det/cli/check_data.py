"""Look at data before a training, and say what it would refuse; then the exit code is 1.

    python tools/check_data.py yolo:data.yaml:train yolo:data.yaml:val
    python tools/check_data.py coco:train.json:images --val coco:holdout.json:images
two of the classes:
    python tools/check_data.py yolo:data.yaml:train yolo:data.yaml:val --classes car,truck

It counts classes, sizes, crowds and odd boxes, names what training leaves out and why, and finds
images that two data sets share, by the content of their files.
"""

import argparse
import sys
from collections.abc import Sequence

from virtex_det.cli.parsers import add_data, as_classes, command_parser
from virtex_det.escaping import say
from virtex_det.own_data.look import divide, look_at
from virtex_det.own_data.words import in_words


def main(arguments: Sequence[str] | None = None) -> None:
    """Look at the data sets that the command line names."""
    options = _parser().parse_args(arguments)
    look = look_at(*divide(options.data, options.val), as_classes(options.classes))
    say(in_words(look))
    if look.problems:
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    add_data(parser)
    return parser
