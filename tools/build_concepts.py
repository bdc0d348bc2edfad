#!/usr/bin/env python3
"""Choose the words that ICMLM masks; the same as ``virtex-det data concepts``."""

from virtex_det.cli.concepts import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
