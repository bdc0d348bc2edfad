"""The pictures that a command is given: files, folders, patterns, videos and data sets by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detectron2.data import DatasetCatalog, MetadataCatalog

from virtex_det.config.data_names import OBJECTS, is_by_name
from virtex_det.data.datasets.by_name import UNLABELLED
from virtex_det.data.pictures import find_images, load_image_files
from virtex_det.data.videos import is_video, read_head


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
        dicts = load_image_files(name)
        paths = [Path(entry["file_name"]) for entry in dicts]
        if MetadataCatalog.get(name).get("evaluator_type") == UNLABELLED:
            return PictureSources(paths, len(paths))
        return PictureSources(paths, len(paths), name, [entry["image_id"] for entry in dicts])
    paths = find_images(names)
    return PictureSources(paths, sum(_count(path) for path in paths))


def _is_dataset(name: str) -> bool:
    is_known = is_by_name(name, OBJECTS) or name in DatasetCatalog.list()
    return is_known and not Path(name).exists()


def _count(path: Path) -> int:
    return read_head(path).frames if is_video(path) else 1
