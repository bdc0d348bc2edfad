#!/usr/bin/env python3
"""Compare captions in numbers; the same as ``virtex-det data captions``."""

from virtex_det.cli.describe_captions import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
