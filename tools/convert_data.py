#!/usr/bin/env python3
"""Write own data as an annotation file of COCO; the same as ``virtex-det data convert``."""

from virtex_det.cli.convert_data import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
