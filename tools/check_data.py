#!/usr/bin/env python3
"""Look at data before a training; the same as ``virtex-det data check``."""

from virtex_det.cli.check_data import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
