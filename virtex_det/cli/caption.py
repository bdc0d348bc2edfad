"""Caption images with a trained captioning model: text, JSON, and a page of pictures and captions.

a run of train_net.py:
    python tools/caption.py --run output/pretrain photo.jpg folder/ 'more/*.png'
published weights:
    python tools/caption.py --run virtex://bicaptioning_R_50_L1_H2048 photo.jpg \\
        INPUT.CAPTION.TOKENIZER coco_10k.model
a weights file:
    python tools/caption.py --config-file config.yaml photo.jpg MODEL.WEIGHTS model.pth
sampling instead of beam search:
    add MODEL.TEXTUAL.DECODING.METHOD nucleus_sampling
"""

import argparse
import sys
from collections.abc import Sequence

from detectron2.utils.env import seed_all_rng

from virtex_det.cli.parsers import IMAGES_HELP, command_parser, positive, split_overrides
from virtex_det.config import load_config
from virtex_det.data.pictures import find_images
from virtex_det.errors import UserError
from virtex_det.escaping import say
from virtex_det.files import check_output_folder
from virtex_det.inference.captioning import Captioner, write_captions
from virtex_det.inference.trained import CAPTIONS, trained_config


def main(arguments: Sequence[str] | None = None) -> None:
    """Caption the images that the command line names."""
    options = _parser().parse_intermixed_args(arguments)
    check_output_folder(options.output)
    names, overrides = split_overrides(options.images)
    images = find_images(names)
    source = options.run or load_config(options.config_file, overrides)
    cfg = trained_config(source, overrides=overrides, task=CAPTIONS)
    seed_all_rng(max(cfg.SEED, 0))
    captioner = Captioner(cfg)
    captions = captioner.caption(images, options.batch_size)
    for image in captions.captioned:
        say(f"{image.file_name}: {image.text}")
    for reason in captions.skipped:
        say(f"skipped: {reason}", file=sys.stderr)
    if not captions.captioned:
        raise UserError(
            "No image was captioned; the reasons are above.\nName files that can be read as images."
        )
    page = write_captions(options.output, captions, captioner.describe())
    counts = f"{len(captions.captioned)} captioned, {len(captions.skipped)} skipped"
    say(f"\n{counts}. Open this page:\n{page}")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGES", help=IMAGES_HELP)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--run", metavar="FOLDER", help="OUTPUT_DIR of a captioning run, or virtex://NAME"
    )
    model.add_argument(
        "--config-file", metavar="FILE", help="config of a captioning model, with MODEL.WEIGHTS set"
    )
    parser.add_argument(
        "--output", default="output/captions", metavar="FOLDER", help="default: %(default)s"
    )
    parser.add_argument(
        "--batch-size", type=positive, default=16, metavar="N", help="default: %(default)s"
    )
    return parser
