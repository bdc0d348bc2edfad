#!/usr/bin/env python3
"""Time the mappers against Detectron2's DatasetMapper: CPU time of one thread, taking turns.

python timing/loading.py                           a synthetic 480x640 JPEG with 10 polygons
python timing/loading.py --dataset coco_2017_val   the first images of a registered data set
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.structures import BoxMode
from PIL import Image
from tabulate import tabulate
from tqdm import tqdm

from virtex_det import get_cfg
from virtex_det.data import CaptionMapper, DetectionMapper, train_tokenizer
from virtex_det.data.datasets import load_dataset
from virtex_det.errors import UserError

Mapper = Callable[[dict[str, Any]], dict[str, Any]]
STOCK = "Detectron2 DatasetMapper"
CAPTIONING = "CaptionMapper"
CAPTIONS = [
    "a small red star left of a large blue circle",
    "a big green square above a tiny yellow ring",
]
VOCAB_SIZE = 60


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="a registered data set with boxes and masks"
    )
    parser.add_argument(
        "--images", type=int, default=20, help="images of the data set (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=60, help="rounds over each image (default: %(default)s)"
    )
    parser.add_argument(
        "--short-edge", type=int, default=800, help="pixels to resize to (default: %(default)s)"
    )
    parser.add_argument("--mask-format", choices=["polygon", "bitmask"], default="polygon")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Time all mappers and print the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.dataset:
            dicts = load_dataset(args.dataset)[: args.images]
        else:
            dicts = [synthetic_example(folder)]
        rows = summarise(measure(build_mappers(args, folder), dicts, args.rounds))
    print(tabulate(rows, headers="keys", floatfmt=".2f"))
    if args.json:
        figures = {"torch": torch.__version__, "images": len(dicts), "mappers": rows}
        args.json.write_text(json.dumps(figures, indent=2))


def synthetic_example(folder: Path) -> dict[str, Any]:
    """Write a smooth, noisy 480x640 JPEG and describe it with 10 polygons of 30 points."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    smooth = coarse.resize((640, 480), Image.Resampling.BICUBIC)
    pixels = np.clip(np.asarray(smooth) + rng.normal(0, 8, (480, 640, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "image.jpg", quality=90)
    return {
        "file_name": str(folder / "image.jpg"),
        "image_id": 0,
        "height": 480,
        "width": 640,
        "annotations": [_polygon(rng, category) for category in range(10)],
    }


def build_mappers(args: argparse.Namespace, folder: Path) -> dict[str, Mapper]:
    """Build Detectron2's mapper and DetectionMapper with the same settings, and CaptionMapper."""
    train_tokenizer(CAPTIONS, folder / "tokenizer.model", vocab_size=VOCAB_SIZE)
    cfg = _config(args, folder)
    fast = _config(args, folder)
    fast.INPUT.FAST_RESIZE = True
    captions = CaptionMapper(cfg, True)
    return {
        STOCK: DatasetMapper(cfg, True),
        "DetectionMapper": DetectionMapper(cfg, True),
        "DetectionMapper, FAST_RESIZE": DetectionMapper(fast, True),
        CAPTIONING: lambda example: captions({**example, "captions": CAPTIONS}),
    }


def measure(
    mappers: dict[str, Mapper], dicts: list[dict[str, Any]], rounds: int
) -> dict[str, list[float]]:
    """Return each mapper's CPU milliseconds per image; in a round all augment in the same way."""
    times: dict[str, list[float]] = {name: [] for name in mappers}
    for seed in tqdm(range(-2, rounds), desc="rounds", leave=False):
        for example in dicts:
            for name, mapper in mappers.items():
                np.random.seed(seed + 2)
                start = time.process_time()
                mapper(example)
                if seed >= 0:
                    times[name].append(1000 * (time.process_time() - start))
    return times


def summarise(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return medians, and for detection mappers the median of the paired ratios to Detectron2's."""
    rows = []
    for name, own in times.items():
        ratio = None if name == CAPTIONING else float(np.median(np.divide(times[STOCK], own)))
        rows.append({"mapper": name, "ms/image": float(np.median(own)), "speed-up": ratio})
    return rows


def _config(args: argparse.Namespace, folder: Path) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MIN_SIZE_TRAIN = (args.short_edge,)
    cfg.INPUT.MASK_FORMAT = args.mask_format
    cfg.INPUT.CAPTION.TOKENIZER = str(folder / "tokenizer.model")
    return cfg


def _polygon(rng: np.random.Generator, category: int) -> dict[str, Any]:
    radius, angles = rng.uniform(30, 90), np.sort(rng.uniform(0, 2 * np.pi, 30))
    points = rng.uniform(100, 380, 2) + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    corner = points.min(axis=0)
    return {
        "bbox": [*corner.tolist(), *(points.max(axis=0) - corner).tolist()],
        "bbox_mode": BoxMode.XYWH_ABS,
        "segmentation": [points.reshape(-1).tolist()],
        "category_id": category,
        "iscrowd": 0,
    }


if __name__ == "__main__":
    try:
        main(parse_args())
    except UserError as error:
        sys.exit(f"error: {error}")
