#!/usr/bin/env python3
"""Write a run on one page; the same as ``virtex-det report``."""

from virtex_det.cli.report import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
