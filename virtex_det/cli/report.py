"""Write a run on one page: curves, AP per class, errors, worst and best images, cost, weights.

    python tools/report.py output/my_segm
another file, and detections with a score of at least 0.3:
    python tools/report.py output/my_segm --output page.html --threshold 0.3

The page is one file, report.html in the run folder. Errors and images need the run's predictions,
inference/DATASET/coco_instances_results.json, and the data; without them the page has the rest.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from virtex_det.cli.parsers import command_parser, positive
from virtex_det.errors import UserError
from virtex_det.escaping import log_visibly, say
from virtex_det.files import check_output
from virtex_det.run_page.page import write_run_page


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page of the run that the command line names."""
    options = _parser().parse_args(arguments)
    log_visibly()
    if options.output is not None:
        check_output(options.output)
        if options.output.suffix.lower() not in (".html", ".htm"):
            raise UserError(
                f"--output {options.output} is not the name of a page; expected FILE.html."
            )
    page = write_run_page(
        options.run,
        options.output,
        threshold=options.threshold,
        images=options.images,
        datasets=options.dataset,
    )
    for text in page.missing:
        say(text)
    say(f"written: {page.path}")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="OUTPUT_DIR of a run")
    parser.add_argument(
        "--output", type=Path, metavar="FILE.html", help="page (default: report.html in RUN)"
    )
    parser.add_argument(
        "--threshold",
        type=_score,
        metavar="SCORE",
        help="lowest score of a detection in the confusion matrix and the images (default: that "
        "with the highest F1)",
    )
    parser.add_argument(
        "--dataset",
        nargs="+",
        default=[],
        metavar="NAME",
        help="data of the evaluations that have moved, such as yolo:NEW/PLACE/data.yaml:val",
    )
    parser.add_argument(
        "--images",
        type=positive,
        default=6,
        metavar="N",
        help="number of the worst and of the best images (default: %(default)s)",
    )
    return parser


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise argparse.ArgumentTypeError(f"{text[:50]!r} is not a score from 0 to 1")
    return score
