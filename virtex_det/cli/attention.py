"""Draw where a trained LocTexModel or ICMLMModel looks for words: a page, and a PNG per image.

narrated images:
    python tools/visualize_attention.py --run output/loctex --dataset coco_2017_val_narratives
narrated images of your own:
    python tools/visualize_attention.py --run output/loctex \\
        --dataset narratives:mine.jsonl:photos/
one caption for all images:
    python tools/visualize_attention.py --run output/icmlm photo.jpg --caption "a dog on a sofa"
a caption in a .txt file beside each image (photos/a.jpg, photos/a.txt):
    python tools/visualize_attention.py --run output/icmlm photos/

LocTex shows the attention of every word, and the narrator's trace if there is one. ICMLM masks one
concept word after the other, and shows its attention and the words that the model predicts for it.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from virtex_det.cli.parsers import IMAGES_HELP, command_parser, positive, split_overrides
from virtex_det.config import load_config
from virtex_det.data.datasets import load_dataset
from virtex_det.data.pictures import find_images
from virtex_det.errors import UserError
from virtex_det.escaping import say
from virtex_det.files import check_output_folder
from virtex_det.inference.attention import AttentionDrawer, with_captions
from virtex_det.inference.attention_sheets import write_sheets


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the images that the command line names."""
    options = _parser().parse_intermixed_args(arguments)
    check_output_folder(options.output)
    names, overrides = split_overrides(options.images)
    dicts = _captioned_images(names, options)
    source = options.run or load_config(options.config_file, overrides)
    drawer = AttentionDrawer(source, overrides)
    sheets = drawer.draw(dicts)
    for reason in sheets.skipped:
        say(f"skipped: {reason}", file=sys.stderr)
    if not sheets.drawn:
        raise UserError(
            "No image was drawn; the reasons are above.\n"
            "Name images that can be read and have a caption."
        )
    page = write_sheets(options.output, sheets, drawer.describe())
    say(f"\n{len(sheets.drawn)} drawn, {len(sheets.skipped)} skipped. Open this page:\n{page}")


def _captioned_images(names: Sequence[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    if bool(names) == bool(options.dataset):
        found = "Both images and a --dataset are" if names else "Neither images nor a --dataset is"
        raise UserError(f"{found} named.\nName either images or a --dataset with captions.")
    if not options.dataset:
        return with_captions(find_images(names)[: options.limit], options.caption)
    if options.caption:
        raise UserError(
            "--caption and --dataset are both set, but a data set has its own captions.\n"
            "Leave one of them out."
        )
    return load_dataset(options.dataset)[: options.limit]


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGES",
        help=IMAGES_HELP,
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--run", metavar="FOLDER", help="OUTPUT_DIR of a LocTexModel's or ICMLMModel's run"
    )
    model.add_argument(
        "--config-file", metavar="FILE", help="config of such a model, with MODEL.WEIGHTS set"
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="data set with narratives or captions, instead of images"
    )
    parser.add_argument(
        "--caption",
        default="",
        metavar="TEXT",
        help="caption of all images (default: the .txt file beside each image)",
    )
    parser.add_argument(
        "--limit",
        type=positive,
        default=20,
        metavar="N",
        help="draw the first N images (default: %(default)s)",
    )
    parser.add_argument(
        "--output", default="output/attention", metavar="FOLDER", help="default: %(default)s"
    )
    return parser
