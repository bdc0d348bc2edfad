#!/usr/bin/env python3
"""Convert weights for other code; the same as ``virtex-det convert``."""

from virtex_det.cli.convert import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
