"""The pictures that a command is given: files, folders, patterns, videos and data sets by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.data import DatasetCatalog, MetadataCatalog

from virtex_det.data.datasets.by_name import FORMS, UNLABELLED
from virtex_det.data.datasets.loading import load_dataset
from virtex_det.data.pictures import find_images
from virtex_det.data.videos import is_video, read_head
from virtex_det.errors import UserError


class PictureSources(NamedTuple):
    """Pictures and videos, and the ids that they have.

    Attributes:
        paths: of pictures and videos.
        number: of pictures, about, with the frames of the videos.
        dataset: name of the labelled data set that they are, "" for other pictures.
        image_ids: of each picture of the data set; empty for other pictures.
    """

    paths: list[Path]
    number: int
    dataset: str = ""
    image_ids: Sequence[int | str] = ()


def find_pictures(names: Sequence[str]) -> PictureSources:
    """Find the pictures that names stand for; a data set keeps its ids if it is named alone.

    Args:
        names: as for ``find_images``, and videos; or one data set of Detectron2's catalogue.

    Raises:
        UserError: a name stands for nothing, a video cannot be read, or a data set is invalid.
    """
    if len(names) == 1 and _is_dataset(names[0]):
        [name] = names
        dicts = _load(name)
        paths = [Path(entry["file_name"]) for entry in dicts]
        if MetadataCatalog.get(name).get("evaluator_type") == UNLABELLED:
            return PictureSources(paths, len(paths))
        return PictureSources(paths, len(paths), name, [entry["image_id"] for entry in dicts])
    paths = find_images(names)
    return PictureSources(paths, sum(_count(path) for path in paths))


def _is_dataset(name: str) -> bool:
    kind, colon, place = name.partition(":")
    is_by_name = kind in FORMS and bool(colon and place)
    return (is_by_name or name in DatasetCatalog.list()) and not Path(name).exists()


def _load(name: str) -> list[dict[str, Any]]:
    dicts = load_dataset(name)
    if any("encoded_image" in entry for entry in dicts[:1]):
        raise UserError(f"The pictures of data set {name} lie in tar files.\nUnpack them.")
    return dicts


def _count(path: Path) -> int:
    return read_head(path).frames if is_video(path) else 1
