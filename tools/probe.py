#!/usr/bin/env python3
"""Measure what a backbone has learned, without a detector; the same as ``virtex-det probe``."""

from virtex_det.cli.probe import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
