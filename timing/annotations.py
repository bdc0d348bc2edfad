#!/usr/bin/env python3
"""Time loading and checking a COCO annotation file against Detectron2's reader without checks.

CPU seconds and peak memory, each in a process of its own, interleaved; medians over the rounds.

python timing/annotations.py                                a generated file of COCO's size, 430 MB
python timing/annotations.py --images 5000 --objects 36000  a smaller one
python timing/annotations.py --file datasets/coco/annotations/instances_train2017.json
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from detectron2.data.datasets import load_coco_json, register_coco_instances
from tabulate import tabulate
from tqdm import tqdm

from virtex_det.data.datasets import load_dataset
from virtex_det.data.datasets.instances import make_dicts, registration_of
from virtex_det.data.datasets.objects import check_masks, why_no_object
from virtex_det.utils import without_garbage_collection

NAME = "timed_annotations"
STOCK = "Detectron2's reader"
UNCHECKED = "load without checks"
LOADED = "load with checks"
CHECKED = "load with checks, masks too"
NAMED = "load by its name, coco:FILE:IMAGES"
WIDTH, HEIGHT = 640, 480
_DEFAULT = "default: %(default)s"


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", type=Path, help="load this file instead of a generated one")
    images, objects = (f"{what} in the generated file" for what in ("images", "objects"))
    parser.add_argument("--images", type=int, default=118_287, help=f"{images} ({_DEFAULT})")
    parser.add_argument("--objects", type=int, default=860_001, help=f"{objects} ({_DEFAULT})")
    parser.add_argument("--rounds", type=int, default=5, help=f"number of rounds ({_DEFAULT})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--one", choices=list(WAYS), help=argparse.SUPPRESS)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Time all ways and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        file = args.file or make_file(Path(folder) / "instances.json", args.images, args.objects)
        rows = summarise(measure(file, args.rounds))
    print(tabulate(rows, headers="keys", floatfmt=".2f"))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


def make_file(path: Path, images: int, objects: int) -> Path:
    """Write annotations in COCO's format.

    Objects have polygons of 6 to 45 points; one in 120 is a crowd, with run lengths.
    """
    rng = np.random.default_rng(0)
    numbers = tqdm(range(1, objects + 1), leave=False)
    content = {
        "info": {},
        "licenses": [],
        "images": [_image(number) for number in range(1, images + 1)],
        "annotations": [_annotation(rng, number, images) for number in numbers],
        "categories": [{"id": number, "name": f"class {number}"} for number in range(1, 81)],
    }
    path.write_bytes(orjson.dumps(content))
    return path


def measure(file: Path, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Return the time and memory of each way in each round."""
    figures: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in tqdm(range(rounds), desc="rounds", leave=False):
        for way in WAYS:
            command = [sys.executable, __file__, "--one", way, "--file", str(file)]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            figures[way].append(json.loads(run.stdout.splitlines()[-1]))
    return figures


def measure_one(way: str, file: Path) -> dict[str, float]:
    """Load the file once in this process."""
    register_coco_instances(NAME, {}, str(file), str(file.parent))
    started = time.process_time()
    WAYS[way](file)
    seconds = time.process_time() - started
    return {
        "seconds": seconds,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def summarise(figures: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Return medians, and the cost of the checks in percent of Detectron2's time, by round."""
    seconds = {
        way: np.array([figure["seconds"] for figure in found]) for way, found in figures.items()
    }
    rows = []
    for way, found in figures.items():
        checks = None
        if way in (LOADED, CHECKED, NAMED):
            ratios = (seconds[way] - seconds[UNCHECKED]) / seconds[STOCK]
            checks = 100 * float(np.median(ratios))
        rows.append(
            {
                "": way,
                "CPU seconds": float(np.median(seconds[way])),
                "of Detectron2's, %": 100 * float(np.median(seconds[way] / seconds[STOCK])),
                "checks, % of Detectron2's": checks,
                "GB at the peak": float(np.median([figure["gigabytes"] for figure in found])),
            }
        )
    return rows


def _load_unchecked(file: Path) -> None:
    registration = registration_of(NAME)
    assert registration is not None
    with without_garbage_collection():
        make_dicts(orjson.loads(file.read_bytes()), registration)


def _load_and_check_masks(_: Path) -> None:
    dicts = load_dataset(NAME)
    check_masks(dicts, "polygon")
    why_no_object(dicts)


WAYS: dict[str, Callable[[Path], object]] = {
    STOCK: lambda file: load_coco_json(str(file), str(file.parent), NAME),
    UNCHECKED: _load_unchecked,
    LOADED: lambda _: load_dataset(NAME),
    CHECKED: _load_and_check_masks,
    NAMED: lambda file: load_dataset(f"coco:{file}:{file.parent}"),
}


def _image(number: int) -> dict[str, Any]:
    return {
        "license": 3,
        "file_name": f"{number:012d}.jpg",
        "coco_url": f"http://images.cocodataset.org/train2017/{number:012d}.jpg",
        "height": HEIGHT,
        "width": WIDTH,
        "date_captured": "2013-11-14 11:18:45",
        "flickr_url": "http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg",
        "id": number,
    }


def _annotation(rng: np.random.Generator, number: int, images: int) -> dict[str, Any]:
    corner, size = rng.uniform(0, 240, 2), rng.uniform(10, 230, 2)
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(6, 46)))
    points = corner + size * (0.5 + 0.5 * np.stack([np.cos(angles), np.sin(angles)], axis=1))
    is_crowd = number % 120 == 0
    runs = {"counts": [100, 50, WIDTH * HEIGHT - 150], "size": [HEIGHT, WIDTH]}
    return {
        "segmentation": runs if is_crowd else [points.round(2).reshape(-1).tolist()],
        "area": round(float(size.prod()) * 0.7, 4),
        "iscrowd": int(is_crowd),
        "image_id": int(rng.integers(1, images + 1)),
        "bbox": [*corner.round(2).tolist(), *size.round(2).tolist()],
        "category_id": number % 80 + 1,
        "id": number,
    }


if __name__ == "__main__":
    arguments = parse_args()
    if arguments.one:
        print(json.dumps(measure_one(arguments.one, arguments.file)))
    else:
        main(arguments)
