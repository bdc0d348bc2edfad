#!/usr/bin/env python3
"""Pretrain on captions, train detectors, and evaluate them; the same as ``virtex-det train``."""

from virtex_det.cli.train import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
