"""Draw where a trained LocTexModel or ICMLMModel looks for the words of captions: a page, and a PNG per image.

    narrated images:     python tools/visualize_attention.py --run output/loctex --dataset coco_2017_val_narratives
    your own:            python tools/visualize_attention.py --run output/loctex \
                             --dataset narratives:mine.jsonl:photos/
    one caption for all: python tools/visualize_attention.py --run output/icmlm photo.jpg --caption "a dog on a sofa"
    captions beside:     python tools/visualize_attention.py --run output/icmlm photos/   (photos/a.jpg, photos/a.txt)

LocTex shows the attention of every word, beside the narrator's trace where there is one. ICMLM shows that of every
concept word, masked in turn, with the words that the model takes it for.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from virtex_det.cli.parsers import command_parser, positive, split_overrides
from virtex_det.config import load_config
from virtex_det.data.datasets import load_dataset
from virtex_det.data.pictures import find_images
from virtex_det.errors import UserError
from virtex_det.escaping import say
from virtex_det.inference.attention import AttentionDrawer, with_captions
from virtex_det.inference.attention_sheets import write_sheets


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the images that the command line names."""
    options = _parser().parse_intermixed_args(arguments)
    names, overrides = split_overrides(options.images)
    dicts = _captioned_images(names, options)
    source = options.run or load_config(options.config_file, overrides)
    drawer = AttentionDrawer(source, overrides)
    sheets = drawer.draw(dicts)
    for reason in sheets.skipped:
        say(f"skipped: {reason}", file=sys.stderr)
    if not sheets.drawn:
        raise UserError(
            f"None of the {len(sheets.skipped)} images can be drawn; the reasons stand above."
        )
    page = write_sheets(options.output, sheets, drawer.describe())
    say(f"\n{len(sheets.drawn)} drawn, {len(sheets.skipped)} skipped. Open this page:\n{page}")


def _captioned_images(names: Sequence[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    if bool(names) == bool(options.dataset):
        raise UserError("Name either images or a --dataset, which has its own captions; not both.")
    if not options.dataset:
        return with_captions(find_images(names)[: options.limit], options.caption)
    if options.caption:
        raise UserError("--caption is for images; a --dataset has its own captions.")
    return load_dataset(options.dataset)[: options.limit]


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGES",
        help="files, folders, quoted patterns; then KEY VALUE of the config",
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--run", metavar="FOLDER", help="OUTPUT_DIR of a LocTexModel's or ICMLMModel's run"
    )
    model.add_argument(
        "--config-file", metavar="FILE", help="config of such a model, with MODEL.WEIGHTS set"
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="narratives or captions, instead of images"
    )
    parser.add_argument(
        "--caption", default="", metavar="TEXT", help="of all images; else the .txt beside each"
    )
    parser.add_argument(
        "--limit",
        type=positive,
        default=20,
        metavar="N",
        help="first images (default: %(default)s)",
    )
    parser.add_argument(
        "--output", default="output/attention", metavar="FOLDER", help="default: %(default)s"
    )
    return parser
