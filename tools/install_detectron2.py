#!/usr/bin/env python3
"""Install Detectron2 where it is missing; the same as ``virtex-det install-detectron2``."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    # By its path: the package needs Detectron2.
    runpy.run_path(
        str(Path(__file__).parents[1] / "virtex_det/cli/install_detectron2.py"), run_name="__main__"
    )
