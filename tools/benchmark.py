#!/usr/bin/env python3
"""Compare what a detector reaches from several starts: run a matrix, print its table.

python tools/benchmark.py run configs/benchmarks/scenes_methods.yaml            what is complete is not done again
python tools/benchmark.py table configs/benchmarks/scenes_methods.yaml --page docs/scenes_methods.md

The table comes from the records of the runs; --page writes it with its command, and the records beside it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

try:
    from virtex_det.engine import with_one_screen_errors
    from virtex_det.engine.matrix import measured, read_matrix, run_matrix
    from virtex_det.utils import write_atomically
except ImportError as error:
    sys.exit(f"error: {error}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run or show the matrix that the command line names."""
    options = _parser().parse_args(arguments)
    matrix = read_matrix(options.matrix)
    comparison = run_matrix(matrix, options.jobs) if options.action == "run" else measured(matrix)
    print(comparison.table())
    if options.page:
        comparison.write_records(options.page.with_suffix(".jsonl"))
        write_atomically(options.page, comparison.page(f"python tools/benchmark.py run {options.matrix}"))
        print(f"\nwritten: {options.page}, {options.page.with_suffix('.jsonl')}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("matrix", metavar="MATRIX.yaml")
    parser.add_argument(
        "--jobs", type=int, default=0, metavar="N", help="runs at once (default: one per core, at most 8)"
    )
    parser.add_argument(
        "--page", type=Path, metavar="FILE.md", help="write the table here too, and its records beside it"
    )
    return parser


if __name__ == "__main__":
    with_one_screen_errors(main)
