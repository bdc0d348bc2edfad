"""Fixtures that write small data sets of each form, and a catalogue that forgets them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@pytest.fixture
def catalog() -> Iterator[None]:
    """Removes what a test registers, so that each test reads its own files."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from virtex_det.data.datasets import by_name

    before = set(DatasetCatalog.list())
    by_name._told.clear()
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Writes an image of 60 x 40 pixels."""

    def write(path: Path, size: tuple[int, int] = (60, 40)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 120, 60)).save(path)
        return path

    return write


@pytest.fixture
def yolo(tmp_path: Path, catalog: None, write_image: Callable[..., Path]) -> Callable[..., str]:
    """Writes a data set in YOLO's format from the labels of images; returns the name of its train.

    A label of None leaves the file out.
    """

    def write(
        labels: Mapping[str, str | None],
        settings: str = "train: images/train\nval: images/train\nnames: [nut, bolt]\n",
        split: str = "train",
    ) -> str:
        for name, text in labels.items():
            write_image(tmp_path / "images" / "train" / name)
            label = tmp_path / "labels" / "train" / Path(name).with_suffix(".txt")
            label.parent.mkdir(parents=True, exist_ok=True)
            if text is not None:
                label.write_text(text)
        (tmp_path / "data.yaml").write_text(settings)
        return f"yolo:{tmp_path}/data.yaml:{split}"

    return write


def voc_xml(
    objects: Sequence[tuple[str, Sequence[float]]],
    size: tuple[int, int] | None = (60, 40),
    difficult: int = 0,
) -> str:
    """Return an XML file of VOC's format with objects of a name and four corners."""
    entries = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}"
        f"</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box in objects
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation>{sides}{entries}</annotation>"


@pytest.fixture
def voc(tmp_path: Path, catalog: None, write_image: Callable[..., Path]) -> Callable[..., str]:
    """Writes a VOC folder with the image set "train" of all given images; returns its name."""

    def write(xml: Mapping[str, str], suffix: str = ".jpg", split: str = "train") -> str:
        for folder in ("Annotations", "ImageSets/Main"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, text in xml.items():
            write_image(tmp_path / "JPEGImages" / f"{name}{suffix}")
            (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
        (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("\n".join(xml))
        return f"voc:{tmp_path}:{split}"

    return write


def coco_content(**changes: Any) -> dict[str, Any]:
    """Return an annotation file of COCO's format with two images and three objects, and changes."""
    content = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "height": 40, "width": 60},
            {"id": 2, "file_name": "b.jpg", "height": 40, "width": 60},
        ],
        "annotations": [
            _object(1, 1, 1, [10, 5, 20, 10]),
            _object(2, 1, 2, [30, 20, 8, 16]),
            _object(3, 2, 2, [0, 0, 60, 40]),
        ],
        "categories": [{"id": 1, "name": "nut"}, {"id": 2, "name": "bolt"}],
    }
    return {**content, **changes}


def lvis_content() -> dict[str, Any]:
    """Return the same in LVIS's format; the first image has its name in coco_url only."""
    content = coco_content()
    for image in content["images"]:
        image |= {"neg_category_ids": [2], "not_exhaustive_category_ids": []}
    content["images"][0] |= {"coco_url": "http://x.org/val2017/a.jpg", "file_name": "COCO_a.jpg"}
    for category in content["categories"]:
        category |= {"frequency": "c", "image_count": 2}
    return content


def _object(number: int, image: int, category: int, box: list[int]) -> dict[str, Any]:
    x, y, w, h = box
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "area": w * h,
        "iscrowd": 0,
        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
    }


@pytest.fixture
def coco(tmp_path: Path, catalog: None, write_image: Callable[..., Path]) -> Callable[..., str]:
    """Writes an annotation file in COCO's format and its images; returns the data set's name."""

    def write(content: dict[str, Any], kind: str = "coco") -> str:
        for name in ("a.jpg", "b.jpg"):
            write_image(tmp_path / "images" / name)
        (tmp_path / "instances.json").write_text(json.dumps(content))
        return f"{kind}:{tmp_path}/instances.json:{tmp_path}/images"

    return write
