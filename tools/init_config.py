#!/usr/bin/env python3
"""Write a config for own data; the same as ``virtex-det init``."""

from virtex_det.cli.init_config import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
