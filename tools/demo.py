#!/usr/bin/env python3
"""Captions in, AP out, on built-in data; the same as ``virtex-det demo``."""

from virtex_det.cli.demo import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
