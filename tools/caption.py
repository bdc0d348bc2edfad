#!/usr/bin/env python3
"""Caption images with a trained captioning model; the same as ``virtex-det caption``."""

from virtex_det.cli.caption import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
