"""Parsers that several commands share."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from virtex_det.config import get_cfg, load_config
from virtex_det.config.rules import LARGEST
from virtex_det.data.datasets.class_rules import Rules, as_rules
from virtex_det.errors import UserError
from virtex_det.files import check_output
from virtex_det.plugins import add_import_option
from virtex_det_commands import as_called

IMAGES_HELP = (
    "files, folders, quoted patterns, data sets such as yolo:data.yaml:val, - for names on "
    "standard input; after them KEY VALUE pairs for the config"
)


def command_parser(text: str | None) -> argparse.ArgumentParser:
    """Return a parser whose ``-h`` shows a text, such as a module's docstring, line by line.

    The text names commands like ``python tools/train_net.py``; ``-h`` shows ``virtex-det train``
    instead if this process was started that way.
    """
    formatter = argparse.RawDescriptionHelpFormatter
    return _Parser(description=as_called(text or ""), formatter_class=formatter)


class _Parser(argparse.ArgumentParser):
    """A parser with ``--import``, as have those of its subcommands."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        add_import_option(self)


def positive(text: str) -> int:
    """Return an argument as an integer from 1 to LARGEST.

    Raises:
        ArgumentTypeError: it is anything else.
    """
    return _integer(text, 1)


def natural(text: str) -> int:
    """Return an argument as an integer from 0 to LARGEST.

    Raises:
        ArgumentTypeError: it is anything else.
    """
    return _integer(text, 0)


def _integer(text: str, low: int) -> int:
    is_plain = text.isascii() and text.isdecimal() and len(text) < 20
    if not is_plain or not low <= int(text) <= LARGEST:
        raise argparse.ArgumentTypeError(f"{text[:50]!r} is not an integer from {low} to {LARGEST}")
    return int(text)


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split images from the ``KEY VALUE`` pairs after them, which begin at the first config key."""
    known = get_cfg()
    for index, argument in enumerate(arguments):
        if argument.partition(".")[0] in known and not Path(argument).exists():
            return list(arguments[:index]), list(arguments[index:])
    return list(arguments), []


def add_new_output(parser: argparse.ArgumentParser, form: str) -> None:
    """Add ``--output``, a file that must not exist, and ``--overwrite``, by which it may.

    Args:
        parser: of the command.
        form: of the file, such as "FILE.json".
    """
    parser.add_argument("--output", type=Path, required=True, metavar=form, help="file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")


def check_new_output(options: argparse.Namespace, *inputs: str | Path | None) -> None:
    """Refuse an output that cannot be written, is an input, or exists without ``--overwrite``.

    Args:
        options: with what ``add_new_output`` adds.
        inputs: files that are read.
    """
    check_output(options.output, *inputs)
    if options.output.exists() and not options.overwrite:
        raise UserError(
            f"{options.output} exists. Name another output, or replace it with --overwrite."
        )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name data to train on and to evaluate on."""
    parser.add_argument(
        "data",
        nargs="+",
        metavar="DATA",
        help="data sets as in DATASETS.TRAIN, such as coco:FILE.json:IMAGES, yolo:data.yaml:SPLIT "
        "or voc:FOLDER:SPLIT; without --val, those called val, valid or test are not trained on",
    )
    parser.add_argument(
        "--val",
        nargs="+",
        default=[],
        metavar="DATA",
        help="data sets that are only evaluated on",
    )
    add_classes(parser)


def add_classes(parser: argparse.ArgumentParser) -> None:
    """Add the option that gives data other classes, as DATASETS.CLASSES does in a config."""
    parser.add_argument(
        "--classes",
        default="",
        metavar="A,B",
        help="only these classes, in this order; or a list as in DATASETS.CLASSES, such as "
        """'["*", ["vehicle", "car", "truck"], ["", "other"]]': all, vehicle is cars and trucks, """
        "other is left out (default: the classes of the data)",
    )


def split_names(text: str) -> list[str]:
    """Return the names in a text that has commas between them.

    Example:
        >>> split_names("car, traffic light")
        ['car', 'traffic light']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def as_classes(text: str) -> Rules:
    """Return the value of ``--classes``.

    Raises:
        UserError: it is a list that DATASETS.CLASSES cannot be.
    """
    if not text.lstrip().startswith(("[", "(")):
        return as_rules(split_names(text))
    return as_rules(load_config(overrides={"DATASETS.CLASSES": text}).DATASETS.CLASSES)
