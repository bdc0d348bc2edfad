#!/usr/bin/env python3
"""Find objects in pictures with a trained detector; the same as ``virtex-det predict``."""

from virtex_det.cli.predict import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
