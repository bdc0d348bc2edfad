"""Datasets whose name says where the data is, for training on own data without writing Python."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from detectron2.data import DatasetCatalog, MetadataCatalog

from virtex_det.data.datasets.by_name import FORMS, register_objects
from virtex_det.data.datasets.captions import register_coco_captions
from virtex_det.data.datasets.narratives import register_narratives
from virtex_det.data.datasets.pairs import load_pairs
from virtex_det.data.datasets.regions import register_regions
from virtex_det.data.datasets.shards import check_shards, load_shards, shard_files
from virtex_det.errors import UserError

SHARDS = "shards:"


class _Kind(NamedTuple):
    form: str
    register: Callable[[str, str], None]  # (name, the part after the colon)


def register_by_name(name: str) -> None:
    """Register a dataset with a name of a known kind, such as ``pairs:`` or ``shards:``.

    Raises:
        UserError: the kind is unknown, or the name does not have its form.
    """
    kind, colon, place = name.partition(":")
    if kind in _KINDS and place:
        _KINDS[kind].register(name, place)
    elif colon:
        nearest = difflib.get_close_matches(kind, _KINDS, n=1, cutoff=0.3) or list(_KINDS)
        forms = "\n".join(
            f"  {form}" for known in nearest for form in _KINDS[known].form.split(" or ")
        )
        raise UserError(f"there is no data set named {name!r}\nDid you mean:\n{forms}")


def _register_captions(name: str, place: str) -> None:
    register_coco_captions(name, *_file_and_folder(name, place))


def _register_narratives(name: str, place: str) -> None:
    register_narratives(name, *_file_and_folder(name, place))


def _file_and_folder(name: str, place: str) -> tuple[Path, Path]:
    file, colon, images = place.rpartition(":")
    if not colon or not file or not images:
        form = _KINDS[name.partition(":")[0]].form
        raise UserError(f"{name!r} must name a file and a folder of images: {form}")
    return Path(file).expanduser(), Path(images).expanduser()


def _register_regions(name: str, place: str) -> None:
    files, images = _file_and_folder(name, place)
    captions, boxes = _file_and_folder(name, str(files))
    register_regions(name, captions, boxes, images)


def _register_pairs(name: str, place: str) -> None:
    path = Path(place).expanduser()
    key = "json_file" if path.suffix.lower() == ".jsonl" else "image_root"
    DatasetCatalog.register(name, lambda: load_pairs(path))
    MetadataCatalog.get(name).set(evaluator_type="captions", **{key: str(path)})


def _register_shards(name: str, place: str) -> None:
    files = shard_files(place)
    check_shards(files)
    DatasetCatalog.register(name, lambda: load_shards(place))
    MetadataCatalog.get(name).set(evaluator_type="captions", shards=files)


_KINDS = {
    **{kind: _Kind(form, register_objects) for kind, form in FORMS.items()},
    "captions": _Kind("captions:FILE.json:IMAGE_FOLDER", _register_captions),
    "narratives": _Kind("narratives:FILE.jsonl:IMAGE_FOLDER", _register_narratives),
    "regions": _Kind("regions:CAPTIONS.json:INSTANCES.json:IMAGE_FOLDER", _register_regions),
    "pairs": _Kind("pairs:FOLDER or pairs:FILE.jsonl", _register_pairs),
    "shards": _Kind("shards:PATTERN.tar", _register_shards),
}
