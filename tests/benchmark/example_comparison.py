"""A small comparison with run folders, annotations and images, of which pages are made."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pycocotools import mask as mask_tools

from virtex_det.benchmark.comparison import Cell, Comparison

CATEGORIES = ("square", "ring <1>")


class Example(NamedTuple):
    """What write_report takes."""

    comparison: Comparison
    folders: dict[Cell, Path]
    annotations: Path
    image_root: Path


def rle(mask: np.ndarray) -> dict:
    """Return COCO's compressed run lengths of a mask."""
    encoded = mask_tools.encode(np.asfortranarray(mask))
    return encoded | {"counts": encoded["counts"].decode()}


def square(image_id: int = 1, **more: object) -> dict:
    """Return an annotation of 16 by 16 pixels in an image of 32 by 32."""
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 1
    return {
        "id": image_id,
        "image_id": image_id,
        "category_id": 1,
        "segmentation": rle(mask),
        "bbox": [8, 8, 16, 16],
    } | more


def write_images(folder: Path, count: int = 2) -> Path:
    """Write grey images with two squares in each; return their annotation file."""
    annotations = [
        square(image_id, id=2 * image_id + n) for image_id in range(1, count + 1) for n in (0, 1)
    ]
    images = [
        {"id": n, "file_name": f"{n}.png", "height": 32, "width": 32} for n in range(1, count + 1)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, 1)]
    for image in images:
        cv2.imwrite(str(folder / image["file_name"]), np.full((32, 32, 3), 200, np.uint8))
    path = folder / "instances.json"
    path.write_text(
        json.dumps({"images": images, "categories": categories, "annotations": annotations})
    )
    return path


def make_example(
    folder: Path,
    make_record: Callable,
    starts: tuple[str, ...] = ("random", "captions"),
    fractions: tuple[float, ...] = (0.1, 1.0),
    protocols: tuple[str, ...] = ("scenes",),
    seeds: tuple[int, ...] = (0, 1),
) -> Example:
    """Make runs whose AP grows with the place of their start, with the labels and with the seed."""
    records, folders, record = {}, {}, make_record()
    cells = [
        Cell(s, p, f, seed) for s in starts for p in protocols for f in fractions for seed in seeds
    ]
    for number, cell in enumerate(cells):
        run = folders[cell] = folder / f"run{number}"
        (run / "inference" / "scenes_val").mkdir(parents=True)
        (run / "inference" / "scenes_val" / "coco_instances_results.json").write_text(
            json.dumps([square(score=0.9)])
        )
        reached = 10.0 * (1 + starts.index(cell.start)) + 5 * cell.fraction + cell.seed
        by_category = {f"AP-{name}": reached + place for place, name in enumerate(CATEGORIES)}
        for iteration in (100, 200):
            box = {"AP": reached * iteration / 200, "AP50": 2 * reached} | by_category
            records[cell] = dataclasses.replace(
                record,
                protocol=f"{cell.protocol}-segm",
                train_fraction=cell.fraction,
                seed=cell.seed,
                iteration=iteration,
                metrics={"bbox": box, "segm": {"AP": 5.0, "AP50": None} | by_category},
            )
            records[cell].write(run)
    comparison = Comparison("What <captions> are worth", starts[0], records, mix=len(protocols) > 1)
    return Example(comparison, folders, write_images(folder), folder)
