#!/usr/bin/env python3
"""Draw where a trained model looks for words; the same as ``virtex-det attention``."""

from virtex_det.cli.attention import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
