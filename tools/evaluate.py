#!/usr/bin/env python3
"""Evaluate a file of detections without a model; the same as ``virtex-det evaluate``."""

from virtex_det.cli.evaluate import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
