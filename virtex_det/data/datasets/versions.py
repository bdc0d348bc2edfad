"""Which version of a data set this is: a hash of what its annotations say, so that results of two are never mixed."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from virtex_det.data.datasets.folders import find_matching
from virtex_det.data.datasets.loading import check_datasets, load_dataset
from virtex_det.data.datasets.voc import annotation_path, image_set_file, read_image_set
from virtex_det.errors import UserError

# By name and registered function: a name registered anew is another data set.
_versions: dict[tuple[str, Any], dict[str, Any]] = {}
_sizes: dict[tuple[str, Any], int] = {}


def dataset_version(name: str) -> dict[str, Any]:
    """Return how many images a data set has, and a hash of its annotations; read once per process.

    The hash is that of the annotation file, as ``sha256sum`` gives it. Where there are several it is the hash of what
    ``sha256sum`` would print of them: a VOC split's list and the XML files of its images, or the parts of a set of
    narratives. Of shards it is the names and sizes, and of the rest (folders of images) what was loaded: image ids with
    labels, captions or objects.

    Args:
        name: a registered data set.

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
    """Note how many images a data set has, for ``dataset_version`` not to load again what was loaded to train on."""
    _sizes[name, DatasetCatalog[name]] = images


def _sha256(name: str) -> str:
    if _is_sharded(name):
        shards = map(Path, MetadataCatalog.get(name).shards)
        return _sha256_of(f"{shard.name} {shard.stat().st_size}" for shard in shards)
    files = _annotation_files(name)
    if not files:
        return _sha256_of(_content(entry) for entry in load_dataset(name))
    hashes = {label: _sha256_of_file(name, path) for label, path in files.items()}
    return (
        next(iter(hashes.values())) if len(hashes) == 1 else _sha256_of(f"{hashes[label]}  {label}" for label in hashes)
    )


def _is_sharded(name: str) -> bool:
    return bool(MetadataCatalog.get(name).get("shards"))


def _annotation_files(name: str) -> dict[str, Path]:
    """Return the files by their names, the same on every machine; none where annotations are not in files."""
    metadata = MetadataCatalog.get(name)
    if metadata.get("dirname") and metadata.get("split"):
        return _voc_files(Path(metadata.dirname), metadata.split)
    patterns = [Path(file) for file in metadata.get("jsonl_files") or [metadata.get("json_file") or ""] if file]
    local = [pattern for pattern in patterns if "://" not in str(pattern)]
    return {path.name: path for pattern in local for path in _matching(pattern)}


def _matching(pattern: Path) -> list[Path]:
    return [pattern] if pattern.exists() else [*map(Path, find_matching(pattern))]


def _voc_files(folder: Path, split: str) -> dict[str, Path]:
    images = [annotation_path(folder, image) for image in read_image_set(folder, split)]
    return {str(path.relative_to(folder)): path for path in (image_set_file(folder, split), *images)}


def _content(entry: dict[str, Any]) -> str:
    told = {key: entry[key] for key in ("image_id", "label", "captions", "annotations") if key in entry}
    # An array as text would leave its middle out.
    return json.dumps(told, sort_keys=True, default=lambda value: getattr(value, "tolist", value.__str__)())


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
        raise UserError(f"data set {name} is not whole: {error}\nDownload or make the annotations again.") from error
    return total.hexdigest()
