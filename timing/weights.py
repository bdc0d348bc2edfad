#!/usr/bin/env python3
"""Time loading a VirTex file against Detectron2's own loader on a converted copy.

python timing/weights.py                  a file of 500 MB with random numbers
python timing/weights.py --rounds 9

The loaders take turns, each time in a new process. Memory is the peak of the load without mapped
files, which need no copy. Linux only.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from tabulate import tabulate
from tqdm import tqdm

from virtex_det import get_cfg
from virtex_det.checkpoint import TransferCheckpointer
from virtex_det.checkpoint.names import from_torchvision
from virtex_det.errors import UserError

OURS, STOCK = "TransferCheckpointer", "Detectron2 DetectionCheckpointer"


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--megabytes", type=int, default=500, help="size of the file (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="number of rounds (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--load", nargs=2, metavar=("LOADER", "FILE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Write both files, load each in turn and print the table."""
    if args.load:
        print(json.dumps(load(*args.load)))
        return
    with tempfile.TemporaryDirectory() as name:
        files = write_files(Path(name), args.megabytes)
        measured: dict[str, list[list[float]]] = {loader: [] for loader in files}
        for _ in tqdm(range(args.rounds), desc="rounds"):
            for loader, file in files.items():
                measured[loader].append(_in_new_process(loader, file))
    rows = summarise(measured)
    print(tabulate(rows, headers="keys", floatfmt=".2f"))
    if args.json:
        figures = {"torch": torch.__version__, "megabytes": args.megabytes, "loaders": rows}
        args.json.write_text(json.dumps(figures))


def write_files(folder: Path, megabytes: int) -> dict[str, Path]:
    """Write a file as VirTex's training does, and a copy with a detector's tensor names."""
    visual = torchvision.models.resnet50(weights=None).state_dict()
    visual = {name: value for name, value in visual.items() if not name.startswith("fc.")}
    rest = max(megabytes * 2**20 // 4 - sum(value.numel() for value in visual.values()), 1024)
    textual = {"textual.embedding.words.weight": torch.randn(rest // 1024, 1024)}
    files = {OURS: folder / "virtex.pth", STOCK: folder / "converted.pth"}
    virtex = {f"visual.cnn.{name}": value for name, value in visual.items()}
    torch.save({"model": virtex | textual, "iteration": 0}, files[OURS])
    prefix = "backbone.bottom_up."
    renamed = {prefix + from_torchvision(name): value for name, value in visual.items()}
    torch.save({"model": renamed | textual, "matching_heuristics": False}, files[STOCK])
    return files


def load(loader: str, file: str) -> list[float]:
    """Load a file into a Mask R-CNN; return seconds and the growth of anonymous memory in MB."""
    cfg = _config()
    model = build_model(cfg)
    checkpointer: Callable = TransferCheckpointer if loader == OURS else DetectionCheckpointer
    before, peak, done = _anonymous_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], _anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    checkpointer(model).load(file)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return [seconds, max(peak[0], _anonymous_mb()) - before]


def summarise(measured: dict[str, list[list[float]]]) -> list[dict[str, str | float]]:
    """Return medians of seconds and memory, and the median of time / Detectron2's by round."""
    stock = np.array(measured[STOCK])[:, 0]
    return [
        {
            "loader": loader,
            "seconds": float(np.median(np.array(own)[:, 0])),
            "peak MB": float(np.median(np.array(own)[:, 1])),
            "time ratio": float(np.median(np.array(own)[:, 0] / stock)),
        }
        for loader, own in measured.items()
    ]


def _config() -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_caption_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_BOX_HEAD.NAME = "StandardROIHeads", "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 2
    cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256]]
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    return cfg


def _in_new_process(loader: str, file: Path) -> list[float]:
    command = [sys.executable, __file__, "--load", loader, str(file)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise UserError(f"{loader} failed:\n{run.stderr[-1000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def _anonymous_mb() -> float:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    try:
        main(parse_args())
    except UserError as error:
        sys.exit(f"error: {error}")
