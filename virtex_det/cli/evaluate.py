"""Evaluate a results file without a model: boxes and, if the file has them, masks.

    python tools/evaluate.py output/inference/coco_instances_results.json --dataset coco_2017_val
    python tools/evaluate.py results.json --annotations instances_val2017.json --style coco \\
        --json numbers.json
    python tools/evaluate.py new.json --compare old.json --annotations lvis_v1_val.json --style lvis

The file is a list in COCO's results format: image_id, category_id, score, and bbox, segmentation
(run lengths) or both. The command prints all metrics in percent, and the AP of each category; with
--compare also the changes, the largest gain first.
"""

import argparse
import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path

from virtex_det.cli.parsers import add_classes, as_classes, command_parser
from virtex_det.data.following import give_classes
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
    if options.dataset:
        give_classes([options.dataset], as_classes(options.classes))
    truth = read_ground_truth(options.annotations or options.dataset, options.style or "")
    evaluate = functools.partial(
        evaluate_file,
        truth,
        extra_max_detections=options.max_detections,
        boundary=options.boundary,
    )
    results = evaluate(options.predictions)
    compared = evaluate(options.compare) if options.compare else None
    say(tables(results, compared))
    if options.json:
        write_atomically(options.json, json.dumps(_without_nan(results, compared), indent=1))
        say(f"\nwritten: {options.json}")


def _without_nan(results: Results, compared: Results | None) -> dict[str, dict]:
    """Return the numbers for JSON, which has no NaN; changes are under "change"."""
    numbers: dict[str, dict] = {}
    for task in results:
        numbers[task] = {name: _or_none(value) for name, value in results[task].items()}
    if compared is not None:
        numbers["change"] = {}
        for task in results:
            if task in compared:
                rows = differences(results[task], compared[task])
                numbers["change"][task] = {row.name: _or_none(row.change) for row in rows}
    return numbers


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("predictions", metavar="PREDICTIONS.json", type=Path)
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument(
        "--dataset",
        metavar="NAME",
        help="a data set as in DATASETS.TEST: a registered one, or such as yolo:data.yaml:val",
    )
    truth.add_argument("--annotations", metavar="FILE", help="an annotation file; needs --style")
    add_classes(parser)
    parser.add_argument(
        "--style", choices=["coco", "lvis"], help="format and metrics of the annotation file"
    )
    parser.add_argument(
        "--compare", metavar="OTHER.json", type=Path, help="results of another run, to compare with"
    )
    parser.add_argument(
        "--json", metavar="OUT", type=Path, help="write the numbers to this file, too"
    )
    parser.add_argument(
        "--max-detections",
        metavar="N",
        type=int,
        nargs="+",
        default=(),
        help="also measure AP with the best N detections of each image",
    )
    parser.add_argument(
        "--boundary",
        action="store_true",
        help="also measure boundary AP of masks (needs the extra [boundary])",
    )
    options = parser.parse_args(arguments)
    if options.annotations and not options.style:
        parser.error("--annotations needs --style coco or --style lvis")
    if options.style and not options.annotations:
        parser.error("--style is only for --annotations")
    if options.classes and options.annotations:
        parser.error("--classes is only for --dataset, such as coco:FILE.json:IMAGES")
    return options
