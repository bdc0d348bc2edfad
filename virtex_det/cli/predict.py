"""Find objects in pictures with a trained detector; write detections and pictures that show them.

a run of train_net.py:
    python tools/predict.py --run output/my_segm photo.jpg folder/ 'more/*.png'
a weights file:
    python tools/predict.py --config-file config.yaml photo.jpg MODEL.WEIGHTS model.pth
only detections with a high score:
    add --threshold 0.8
detections for an evaluation:
    python tools/predict.py --run output/my_segm val2017/ --annotations instances.json
    python tools/evaluate.py output/predictions/detections.json \\
        --annotations instances.json --style coco

Detections are in COCO's results format.
"""

import argparse
from collections.abc import Sequence

from detectron2.config import CfgNode

from virtex_det.cli.parsers import IMAGES_HELP, command_parser, split_overrides
from virtex_det.config import load_config, override
from virtex_det.data.pictures import find_images
from virtex_det.inference import Detector
from virtex_det.inference.detection_files import (
    DETECTIONS,
    DRAWN_FROM,
    IMAGES,
    PICTURES,
    ids_of_file,
    own_ids,
    write_detections,
)
from virtex_det.inference.trained import DETECTION, trained_config


def main(arguments: Sequence[str] | None = None) -> None:
    """Find the objects in the pictures that the command line names."""
    options = _parser().parse_intermixed_args(arguments)
    names, overrides = split_overrides(options.pictures)
    paths = find_images(names)
    source = options.run or load_config(options.config_file, overrides)
    cfg = trained_config(source, overrides=overrides, task=DETECTION)
    detector = Detector(_reaching(cfg, options.threshold))
    file = options.annotations
    ids = ids_of_file(detector, paths, file) if file else own_ids(detector, paths)
    draw = not options.no_pictures
    written = write_detections(
        options.output, detector, paths, ids, threshold=options.threshold, draw=draw
    )
    counts = f"{written.detections} detections in {written.pictures} pictures"
    print(f"\n{counts}, {written.skipped} skipped.")
    files = [DETECTIONS, IMAGES, *([f"{PICTURES}/"] if draw else [])]
    print(f"written: {', '.join(files)} in {options.output}")


def _reaching(cfg: CfgNode, threshold: float | None) -> CfgNode:
    """Return the config with the model's own score thresholds lowered to a threshold below them."""
    keys = {}
    for part in ("ROI_HEADS", "RETINANET"):
        if threshold is not None and threshold < cfg.MODEL[part].SCORE_THRESH_TEST:
            keys[f"MODEL.{part}.SCORE_THRESH_TEST"] = threshold
    return override(cfg, keys)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    parser.add_argument(
        "pictures",
        nargs="+",
        metavar="PICTURES",
        help=IMAGES_HELP,
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--run", metavar="RUN", help="OUTPUT_DIR of a detector's run, or a checkpoint in it"
    )
    model.add_argument(
        "--config-file", metavar="FILE", help="config of a detector, with MODEL.WEIGHTS set"
    )
    threshold = (
        "write and draw detections with at least this score (default: write all, draw those of "
        f"at least {DRAWN_FROM})"
    )
    parser.add_argument("--threshold", type=_score, metavar="SCORE", help=threshold)
    annotations = "annotation file with the ids of images and categories (default: 1, 2, 3 ...)"
    parser.add_argument("--annotations", metavar="FILE.json", help=annotations)
    parser.add_argument("--no-pictures", action="store_true", help="write only the detections")
    parser.add_argument(
        "--output", default="output/predictions", metavar="FOLDER", help="default: %(default)s"
    )
    return parser


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = -1
    if not 0 <= score <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return score
