"""Find objects in pictures and videos with a trained detector: files, counts, a page.

a run of train_net.py:
    python tools/predict.py --run output/my_segm photo.jpg folder/ 'more/*.png' film.mp4
a weights file:
    python tools/predict.py --weights model.pth --config-file config.yaml folder/
only detections with a high score, of a class with a higher one:
    add --threshold person=0.7 0.5
drawn pictures, or a drawn video:
    add --draw
small objects in large pictures:
    add --tiles 640
a list of files:
    find photos -newer last | python tools/predict.py --run output/my_segm -
detections for an evaluation:
    python tools/predict.py --run output/my_segm coco:instances.json:val2017
    python tools/evaluate.py output/predictions/detections.json \\
        --annotations instances.json --style coco

In the output folder: detections.html, a page; detections.json, in COCO's results format;
images.json, what its ids mean; counts.csv, objects of each class in each picture.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from virtex_det.cli.parsers import command_parser, positive, split_names, split_overrides
from virtex_det.config import load_config
from virtex_det.escaping import say
from virtex_det.inference import Detector
from virtex_det.inference.detection_files import (
    COUNTS,
    DETECTIONS,
    DRAWN_FROM,
    IMAGES,
    PAGE,
    PICTURES,
    VIDEOS,
    check_output,
    write_detections,
)
from virtex_det.inference.picture_sources import PictureSources, find_pictures
from virtex_det.inference.result_ids import (
    FileIds,
    Ids,
    ids_of_dataset,
    ids_of_file,
    own_ids,
    read_ids,
)
from virtex_det.inference.trained import DETECTION, trained_config


def main(arguments: Sequence[str] | None = None) -> None:
    """Find the objects in the pictures that the command line names."""
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    scores, others = _scores(options.threshold, parser)
    names, overrides = split_overrides(options.pictures + others)
    if bool(options.run) == bool(options.weights or options.config_file):
        parser.error("name the detector: --run RUN, or --weights FILE, or --config-file FILE")
    if not names:
        parser.error("name the pictures: files, folders, quoted patterns, videos, data sets")
    check_output(options.output)
    cfg = _config(options, overrides)
    sources = find_pictures(names)
    of_file = read_ids(options.annotations, sources.paths) if options.annotations else None
    detector = Detector(
        cfg,
        threshold=scores.pop("", None),
        thresholds=scores,
        classes=split_names(options.classes),
        maximum=options.maximum,
        batch_size=options.batch,
        tile=options.tiles,
        tile_overlap=options.overlap,
        tta=options.tta,
    )
    written = write_detections(
        options.output,
        detector,
        sources.paths,
        _ids(detector, sources, of_file),
        draw=options.draw,
        total=sources.number,
    )
    plural = "" if written.pictures == 1 else "s"
    counts = f"{written.detections} detections in {written.pictures} picture{plural}"
    drawn = [f"{name}/" for name in (PICTURES, VIDEOS) if Path(options.output, name).exists()]
    say(f"\n{counts}, {written.skipped} skipped.")
    files = ", ".join([DETECTIONS, IMAGES, COUNTS, *drawn])
    say(f"written: {files} in {options.output}. Open this page:")
    say(f"{options.output}/{PAGE}")


def _config(options: argparse.Namespace, overrides: Sequence[str]) -> CfgNode:
    source: Any = options.run or options.weights
    if source is None:
        source = load_config(options.config_file, overrides)
    config = options.config_file if options.weights else None
    return trained_config(source, config, overrides, task=DETECTION)


def _ids(detector: Detector, sources: PictureSources, of_file: FileIds | None) -> Ids:
    if of_file is not None:
        return ids_of_file(detector, of_file)
    if sources.dataset:
        return ids_of_dataset(detector, sources.dataset, sources.image_ids)
    return own_ids(detector)


def _scores(
    words: Sequence[str], parser: argparse.ArgumentParser
) -> tuple[dict[str, float], list[str]]:
    """Return the scores that words begin with, by class or "" for all others, and the rest.

    The rest are names of pictures that stand behind the option.
    """
    scores: dict[str, float] = {}
    for place, word in enumerate(words):
        name, _, number = word.rpartition("=")
        try:
            score = float(number)
        except ValueError:
            if scores:
                return scores, list(words[place:])
            score = -1.0
        if not 0 <= score <= 1:
            parser.error(f"argument --threshold: {word!r:.100} is not a number from 0 to 1")
        scores[name] = score
    return scores, []


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    parser.add_argument(
        "pictures",
        nargs="*",
        metavar="PICTURES",
        help="files, folders, quoted patterns, videos, data sets such as folder:IMAGES, - for "
        "names on standard input; after them KEY VALUE pairs for the config",
    )
    model = parser.add_mutually_exclusive_group()  # neither: the config has MODEL.WEIGHTS
    model.add_argument(
        "--run", metavar="RUN", help="OUTPUT_DIR of a detector's run, or a checkpoint in it"
    )
    model.add_argument(
        "--weights", metavar="FILE", help="weights of a detector, with --config-file or in its run"
    )
    parser.add_argument(
        "--config-file", metavar="FILE", help="config of the weights, or one with MODEL.WEIGHTS"
    )
    threshold = (
        "write, draw and count detections with at least this score; CLASS=SCORE for one class "
        f"(default: write all, draw and count those of at least {DRAWN_FROM})"
    )
    parser.add_argument("--threshold", nargs="+", default=[], metavar="SCORE", help=threshold)
    parser.add_argument(
        "--classes", default="", metavar="A,B", help="only these classes (default: all)"
    )
    parser.add_argument(
        "--maximum", type=int, metavar="N", help="detections in a picture (default: the model's)"
    )
    parser.add_argument(
        "--batch", type=positive, default=1, metavar="N", help="pictures at once (default: 1)"
    )
    tiles = (
        "look at pictures larger than this in overlapping tiles of this side, too; needs "
        "supervision: pip install 'virtex_det[predict]'"
    )
    parser.add_argument("--tiles", type=positive, metavar="PIXELS", help=tiles)
    parser.add_argument(
        "--overlap", type=int, metavar="PIXELS", help="of tiles (default: a fifth of their side)"
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="look at each picture in the sizes of TEST.AUG, also mirrored",
    )
    annotations = "annotation file with the ids of images and categories (default: 1, 2, 3 ...)"
    parser.add_argument("--annotations", metavar="FILE.json", help=annotations)
    drawn = f"write the pictures with their detections into {PICTURES}/, videos into {VIDEOS}/"
    parser.add_argument("--draw", action="store_true", help=drawn)
    parser.add_argument(
        "--output", default="output/predictions", metavar="FOLDER", help="default: %(default)s"
    )
    return parser
