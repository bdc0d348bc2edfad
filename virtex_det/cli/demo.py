"""Captions in, AP out, on built-in data: about twelve minutes on two cores.

Started again after an interruption, it continues where it was.
"""

import argparse
import dataclasses
from collections.abc import Sequence

from virtex_det.experiments.demo import FULL, QUICK, run_demo


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="under two minutes; shows only that all parts run"
    )
    parser.add_argument(
        "--output",
        help="folder for data, runs and page (default: output/demo or output/demo_quick)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        metavar="N",
        help="seeds of the fine-tuning runs (default: 0 1)",
    )
    args = parser.parse_args(arguments)
    folder = args.output or ("output/demo_quick" if args.quick else "output/demo")
    size = QUICK if args.quick else FULL
    run_demo(folder, dataclasses.replace(size, seeds=tuple(args.seeds or size.seeds)))
