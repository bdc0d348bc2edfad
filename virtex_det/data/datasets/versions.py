"""The version of a dataset, a hash of its annotations, so that results of two are never mixed."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from virtex_det.data.datasets.by_name import find_source, read_files
from virtex_det.data.datasets.folders import find_matching
from virtex_det.data.datasets.found import DIFFICULT, Found
from virtex_det.data.datasets.loading import check_datasets, load_dataset
from virtex_det.data.datasets.voc import annotation_path, image_set_file, read_image_set
from virtex_det.errors import UserError

# By name and registered function: a name that is registered again is another dataset.
_versions: dict[tuple[str, Any], dict[str, Any]] = {}
_sizes: dict[tuple[str, Any], int] = {}


def dataset_version(name: str) -> dict[str, Any]:
    """Return a dataset's number of images and the hash of its annotations, read once per process.

    For one annotation file it is the file's sha256. For several (a VOC split's list and XML files,
    or the parts of narratives) it is the hash of the output of ``sha256sum``. For shards it is the
    hash of their names and sizes. For other datasets (folders of images, data in YOLO's and VOC's
    format) it is the hash of the loaded image ids with labels, captions or objects, whatever
    classes DATASETS.CLASSES makes of these.

    Args:
        name: a registered dataset.

    Returns:
        ``{"images": number, "sha256": hexadecimal}``.

    Raises:
        UserError: the data set is unknown, or a file is missing.
    """
    check_datasets([name])
    key = name, DatasetCatalog[name]
    if key not in _versions:
        if key not in _sizes and not _is_sharded(name):
            remember_size(name, len(load_dataset(name)))
        _versions[key] = {"images": _sizes.get(key, 0), "sha256": _sha256(name)}
    return dict(_versions[key])


def remember_size(name: str, images: int) -> None:
    """Note a dataset's number of images, so that ``dataset_version`` need not load it again."""
    _sizes[name, DatasetCatalog[name]] = images


def _sha256(name: str) -> str:
    if _is_sharded(name):
        shards = map(Path, MetadataCatalog.get(name).shards)
        return _sha256_of(f"{shard.name} {shard.stat().st_size}" for shard in shards)
    files = _annotation_files(name)
    source = find_source(name)
    if source and not files:
        return _sha256_of(_lines(read_files(source)))
    if not files:
        return _sha256_of(_content(entry) for entry in load_dataset(name))
    hashes = {label: _sha256_of_file(name, path) for label, path in files.items()}
    return (
        next(iter(hashes.values()))
        if len(hashes) == 1
        else _sha256_of(f"{hashes[label]}  {label}" for label in hashes)
    )


def _is_sharded(name: str) -> bool:
    return bool(MetadataCatalog.get(name).get("shards"))


def _annotation_files(name: str) -> dict[str, Path]:
    """Return the annotation files by their names, which are the same on every machine."""
    metadata = MetadataCatalog.get(name)
    if metadata.get("dirname") and metadata.get("split"):
        return _voc_files(Path(metadata.dirname), metadata.split)
    patterns = [
        Path(file)
        for file in (
            *(metadata.get("jsonl_files") or [metadata.get("json_file")]),
            metadata.get("boxes_json"),
        )
        if file
    ]
    local = [pattern for pattern in patterns if "://" not in str(pattern)]
    return {path.name: path for pattern in local for path in _matching(pattern)}


def _matching(pattern: Path) -> list[Path]:
    return [pattern] if pattern.exists() else [*map(Path, find_matching(pattern))]


def _voc_files(folder: Path, split: str) -> dict[str, Path]:
    images = [annotation_path(folder, image) for image in read_image_set(folder, split)]
    return {
        str(path.relative_to(folder)): path for path in (image_set_file(folder, split), *images)
    }


def _content(entry: dict[str, Any]) -> str:
    told = {
        key: entry[key] for key in ("image_id", "label", "captions", "annotations") if key in entry
    }
    # The text of an array omits its middle.
    return json.dumps(
        told, sort_keys=True, default=lambda value: getattr(value, "tolist", value.__str__)()
    )


def _lines(found: Found) -> Iterator[str]:
    """Yield the classes, and for each image the classes, boxes and masks of its objects."""
    content = found.content
    titles = {category["id"]: category["name"] for category in content["categories"]}
    yield json.dumps(sorted(titles.items()))
    objects: dict[Any, list[Any]] = {image["id"]: [] for image in content["images"]}
    for entry in content["annotations"]:
        told = [titles[entry["category_id"]], entry["bbox"], entry.get("segmentation")]
        objects[entry["image_id"]].append([*told, entry.get(DIFFICULT, 0)])
    for image_id, of_image in objects.items():
        yield json.dumps([found.names.get(image_id, image_id), of_image])


def _sha256_of(lines: Iterable[str]) -> str:
    total = hashlib.sha256()
    for line in sorted(lines):
        total.update(f"{line}\n".encode())
    return total.hexdigest()


def _sha256_of_file(name: str, path: Path) -> str:
    total = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                total.update(chunk)
    except OSError as error:
        raise UserError(
            f"data set {name} is incomplete: {error}\nDownload or make the annotations again."
        ) from error
    return total.hexdigest()
