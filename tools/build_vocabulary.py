#!/usr/bin/env python3
"""Make a vocabulary from captions; the same as ``virtex-det data vocabulary``."""

from virtex_det.cli.vocabulary import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
