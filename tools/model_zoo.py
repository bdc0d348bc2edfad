#!/usr/bin/env python3
"""List, describe, download and verify published weights; the same as ``virtex-det zoo``."""

from virtex_det.cli.zoo import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
