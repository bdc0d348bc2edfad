#!/usr/bin/env python3
"""Divide captions into clusters; the same as ``virtex-det data clusters``."""

from virtex_det.cli.clusters import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
