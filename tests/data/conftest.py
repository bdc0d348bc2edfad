"""One small photo with annotations and captions, a vocabulary, and a way to register dataset
dicts.
"""

import copy
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from virtex_det.data import train_tokenizer

CAPTIONS = [
    "a small red star left of a large blue circle",
    "a café with two bright lights, one on the right",
]


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG of 40 x 60 pixels, smooth as photos are."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(
        (60, 40), Image.Resampling.BICUBIC
    )
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    image.save(path, quality=95)
    return path


@pytest.fixture
def example(photo: Path) -> dict[str, Any]:
    """A dataset dict of the photo: two polygons, a crowd, two captions."""
    return {
        "file_name": str(photo),
        "image_id": 7,
        "height": 40,
        "width": 60,
        "captions": list(CAPTIONS),
        "annotations": [
            _annotation(
                0, [5.5, 4.25, 20.5, 15.75], [5.5, 4.25, 26.0, 4.25, 26.0, 20.0, 5.5, 20.0]
            ),
            _annotation(2, [30, 10, 21, 23], [30, 10, 51, 10, 40, 33]),
            {**_annotation(1, [0, 0, 50, 30], [0, 0, 50, 0, 50, 30]), "iscrowd": 1},
        ],
    }


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of 60 pieces made of the captions."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_tokenizer(CAPTIONS, path, vocab_size=60)
    return path


@pytest.fixture
def register() -> Iterator[Callable[..., str]]:
    """Registers dataset dicts under a name for the length of a test."""
    names: list[str] = []

    def register_dicts(
        dicts: list[dict[str, Any]], name: str = "build_test", classes: int = 3
    ) -> str:
        DatasetCatalog.register(name, lambda: copy.deepcopy(dicts))
        MetadataCatalog.get(name).thing_classes = [f"class {index}" for index in range(classes)]
        names.append(name)
        return name

    yield register_dicts
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def _annotation(category: int, box: list[float], polygon: list[float]) -> dict[str, Any]:
    return {
        "bbox": box,
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": category,
        "iscrowd": 0,
        "segmentation": [polygon],
    }


@pytest.fixture
def write_shard(photo: Path) -> Callable[..., Path]:
    """Writes tar shards: ``count`` samples of the photo, whose caption and key tell shard and
    number.

    ``changes`` gives by number what else is in a sample: a dict from suffix to bytes, None for a
    file to leave out.
    """

    def write(
        path: Path, count: int, changes: dict[int, dict[str, bytes | None]] | None = None
    ) -> Path:
        with tarfile.open(path, "w") as tar:
            for number in range(count):
                files = {"jpg": photo.read_bytes(), "txt": f"star {path.stem} {number}".encode()}
                files |= (changes or {}).get(number, {})
                for suffix, content in files.items():
                    if content is not None:
                        member = tarfile.TarInfo(f"{path.stem}_{number}.{suffix}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
        return path

    return write
