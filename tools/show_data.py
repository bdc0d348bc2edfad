#!/usr/bin/env python3
"""Write a page about data; the same as ``virtex-det data show``."""

from virtex_det.cli.show_data import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
