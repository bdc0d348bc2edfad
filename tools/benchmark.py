#!/usr/bin/env python3
"""Compare what detectors reach from several starts; the same as ``virtex-det benchmark``."""

from virtex_det.cli.benchmark import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
