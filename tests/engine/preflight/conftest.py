"""Data sets for tests to spoil: a small one in COCO's format, and copies of those of the scenes."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from PIL import Image

from virtex_det.data.datasets import load_dataset

NAMES = ("bolt", "nut")
CHANGED = "changed_scenes"


def content(images: int = 4) -> dict:
    """Return images of 40 x 60 pixels with a bolt and a nut in each."""
    boxes = {1: [5, 5, 20, 15], 2: [30, 10, 20, 20]}
    annotations = [
        {"id": 10 * image + category, "image_id": image, "category_id": category, "bbox": box}
        | {"area": box[2] * box[3], "iscrowd": 0, "segmentation": [_corners(*box)]}
        for image in range(1, images + 1)
        for category, box in boxes.items()
    ]
    return {
        "images": [
            {"id": image, "file_name": f"{image}.png", "height": 40, "width": 60}
            for image in range(1, images + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)],
    }


def _corners(x: int, y: int, width: int, height: int) -> list[float]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Writes and registers a data set with its pictures.

    Called as ``parts("train", spoil)``, where spoil changes the annotations before they are
    written.
    """
    names: list[str] = []

    def register(
        split: str, spoil: Callable[[dict], object] = lambda content: None, **metadata: object
    ) -> str:
        folder = tmp_path / split
        folder.mkdir()
        wanted = copy.deepcopy(content())
        for image in wanted["images"]:
            colour = (
                40 * image["id"],
                90,
                sum(map(ord, split)) % 256,
            )  # no copy of another split's
            Image.new("RGB", (60, 40), colour).save(folder / image["file_name"])
        spoil(wanted)
        (folder / "instances.json").write_text(json.dumps(wanted))
        register_coco_instances(
            f"parts_{split}", metadata, str(folder / "instances.json"), str(folder)
        )
        names.append(f"parts_{split}")
        return names[-1]

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def change_scenes(scenes: Path) -> Iterator[Callable[..., None]]:
    """Registers a changed copy of a data set of the scenes as CHANGED.

    Called as ``change_scenes("scenes_train_regions", change)``; change gets each dataset dict.
    """

    def register(name: str, change: Callable[[dict], object]) -> None:
        dicts = copy.deepcopy(load_dataset(name))
        for entry in dicts:
            change(entry)
        DatasetCatalog.register(CHANGED, lambda: dicts)
        MetadataCatalog.get(CHANGED).set(evaluator_type="captions")

    yield register
    DatasetCatalog.pop(CHANGED, None)
    MetadataCatalog.pop(CHANGED, None)


@pytest.fixture
def parts_cfg(
    detector_cfg: Callable[..., CfgNode], parts: Callable[..., str]
) -> Callable[..., CfgNode]:
    """Makes configs of a tiny Mask R-CNN on parts_train and on parts_val, which is spoilt."""

    def make(*options: object, spoil: Callable[[dict], object] = lambda content: None) -> CfgNode:
        train, test = parts("train"), parts("val", spoil)
        names = ("DATASETS.TRAIN", f"('{train}',)", "DATASETS.TEST", f"('{test}',)")
        return detector_cfg(
            *names, "MODEL.ROI_HEADS.NUM_CLASSES", 2, "DATALOADER.NUM_WORKERS", 0, *options
        )

    return make
