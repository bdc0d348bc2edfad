#!/usr/bin/env python3
"""Export a trained detector for ONNX, TorchScript or torch.export; ``virtex-det export``."""

from virtex_det.cli.export import main
from virtex_det.engine import with_one_screen_errors

if __name__ == "__main__":
    with_one_screen_errors(main)
