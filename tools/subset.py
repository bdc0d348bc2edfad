#!/usr/bin/env python3
"""Show a part of a data set, and list its images; the same as ``virtex-det data subset``."""

from virtex_det.cli.subset import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
