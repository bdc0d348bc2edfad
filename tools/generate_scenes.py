#!/usr/bin/env python3
"""Write the built-in data: shapes, masks, captions; the same as ``virtex-det data scenes``."""

from virtex_det.cli.scenes import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
