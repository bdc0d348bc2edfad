"""Write own data of any form, or a part of them, as an annotation file of COCO's format.

    python tools/convert_data.py yolo:data.yaml:train --output train.json
a fifth for validation, and the rest:
    python tools/convert_data.py coco:all.json:images --fraction 0.2 --output val.json
    python tools/convert_data.py coco:all.json:images --fraction 0.2 --rest --output train.json
a hundred images:
    python tools/convert_data.py voc:VOC2007:trainval --images 100 --output hundred.json
two of the classes:
    python tools/convert_data.py yolo:data.yaml:train --classes car,truck --output cars.json

Images stay where they are. A part is chosen as by tools/subset.py, whose files --split takes.
"""

import argparse
import json
from collections.abc import Sequence

from virtex_det.cli.parsers import (
    add_classes,
    add_new_output,
    as_classes,
    check_new_output,
    command_parser,
    positive,
)
from virtex_det.cli.subset import part_config
from virtex_det.data.datasets import load_dataset
from virtex_det.data.datasets.loading import files_of
from virtex_det.data.datasets.split_files import Subset, subset_of
from virtex_det.data.following import give_classes
from virtex_det.data.training_set import choose_images
from virtex_det.errors import UserError
from virtex_det.escaping import say
from virtex_det.files import check_output
from virtex_det.own_data.conversion import convert, readable_name
from virtex_det.own_data.survey import collected_warnings
from virtex_det.utils import write_atomically


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert the data set that the command line names."""
    options = _parser().parse_args(arguments)
    check_new_output(options, options.split)
    name = readable_name(options.data)
    check_output(options.output, *files_of([name]))
    give_classes([name], as_classes(options.classes))
    with collected_warnings():  # what the reader warns of is among the notes
        converted = convert(name, _chosen(options, options.data))
    content = converted.content
    write_atomically(options.output, json.dumps(content) + "\n")
    for note in converted.notes:
        say(f"note: {note}")
    say(
        f"{options.output}: {len(content['images'])} images, {len(content['annotations'])} "
        f"objects, {len(content['categories'])} classes\n"
        f"its name: coco:{options.output}:{converted.image_root}"
    )


def _chosen(options: argparse.Namespace, name: str) -> list[int | str] | None:
    """Return the ids of the images that the command line chooses; None for all."""
    is_counted = options.fraction is not None or options.images is not None
    if not (is_counted or options.split):
        if options.rest:
            raise UserError("--rest needs --fraction, --images or --split: it is all but these.")
        return None
    everything = [entry["image_id"] for entry in load_dataset(name)]
    fraction = 1.0 if options.fraction is None else options.fraction
    if options.images:
        if options.images > len(everything):
            raise UserError(f"--images {options.images}, but {name} has {len(everything)}.")
        fraction = options.images / len(everything)
    part = Subset(fraction, options.seed, options.stratified)
    if options.split and not is_counted:
        part = subset_of(options.split) or part
    dicts = choose_images(part_config([name], part, options.split))[name]
    chosen = dict.fromkeys(entry["image_id"] for entry in dicts)
    if not options.rest:
        return [*chosen]
    rest = [image_id for image_id in everything if image_id not in chosen]
    if not rest:
        raise UserError(f"--rest leaves no image: all {len(everything)} of {name} are in the part.")
    return rest


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    parser.add_argument("data", metavar="DATA", help="a data set, such as yolo:data.yaml:train")
    add_new_output(parser, "FILE.json")
    add_classes(parser)
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--fraction", type=float, metavar="F", help="fraction of the images")
    part.add_argument("--images", type=positive, metavar="N", help="number of images")
    parser.add_argument(
        "--split",
        default="",
        metavar="FILE",
        help="a split file that names them; without the part in it, give --fraction, too",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="chooses the images (default: 0)"
    )
    parser.add_argument(
        "--stratified", action="store_true", help="take the same fraction of every category"
    )
    parser.add_argument("--rest", action="store_true", help="write the images that are not chosen")
    return parser
