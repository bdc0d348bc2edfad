"""Evaluate a results file without a model: boxes and, where the file has them, masks.

    python tools/evaluate.py output/inference/coco_instances_results.json --dataset coco_2017_val
    python tools/evaluate.py results.json --annotations instances_val2017.json --style coco --json numbers.json
    python tools/evaluate.py ours.json --compare theirs.json --annotations lvis_v1_val.json --style lvis

The file is a list in COCO's results format: image_id, category_id, score, and bbox, segmentation (run lengths) or both.
Prints all numbers in percent and the AP of each category; with --compare what changed, the largest gain first.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

from virtex_det.cli.parsers import command_parser
from virtex_det.escaping import log_visibly, say
from virtex_det.evaluation.detection.results_file import (
    Results,
    differences,
    evaluate_file,
    read_ground_truth,
    tables,
)
from virtex_det.files import check_output
from virtex_det.utils import write_atomically


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate the files that the command line names."""
    options = _parse(arguments)
    log_visibly()
    check_output(options.json, options.predictions, options.compare, options.annotations)
    truth = read_ground_truth(options.annotations or options.dataset, options.style or "")
    ours, *others = (
        evaluate_file(
            truth, path, extra_max_detections=options.max_detections, boundary=options.boundary
        )
        for path in filter(None, (options.predictions, options.compare))
    )
    theirs = others[0] if others else None
    say(tables(ours, theirs))
    if options.json:
        write_atomically(options.json, json.dumps(_without_nan(ours, theirs), indent=1))
        say(f"\nwritten: {options.json}")


def _without_nan(ours: Results, theirs: Results | None) -> dict[str, dict]:
    """Return what is written as JSON, which has no NaN; changes stand under "change"."""
    numbers: dict[str, dict] = {
        task: {name: _or_none(value) for name, value in ours[task].items()} for task in ours
    }
    if theirs is not None:
        numbers["change"] = {
            task: {row.name: _or_none(row.change) for row in differences(ours[task], theirs[task])}
            for task in ours
            if task in theirs
        }
    return numbers


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("predictions", metavar="PREDICTIONS.json", type=Path)
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument(
        "--dataset", metavar="NAME", help="a registered dataset, below $DETECTRON2_DATASETS"
    )
    truth.add_argument("--annotations", metavar="FILE", help="an annotation file, with --style")
    parser.add_argument(
        "--style", choices=["coco", "lvis"], help="whose numbers the annotation file is for"
    )
    parser.add_argument(
        "--compare", metavar="OTHER.json", type=Path, help="results of another run, to compare with"
    )
    parser.add_argument("--json", metavar="OUT", type=Path, help="write the numbers here too")
    parser.add_argument(
        "--max-detections",
        metavar="N",
        type=int,
        nargs="+",
        default=(),
        help="AP with the best N of an image, too",
    )
    parser.add_argument(
        "--boundary", action="store_true", help="boundary AP of masks, too (extra [boundary])"
    )
    options = parser.parse_args(arguments)
    if bool(options.annotations) != bool(options.style):
        parser.error("--annotations and --style go together")
    return options
