"""What the readers of own data return: the objects of a data set in COCO's format."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from virtex_det.errors import BrokenExample
from virtex_det.image_files import inspect_image
from virtex_det.utils import map_in_threads

Content = Mapping[str, Any]  # "images", "annotations" and "categories", as in a file of COCO

DIFFICULT = "difficult"  # 1 for a difficult object of VOC
_THREADS = 8  # they mostly wait for the disk
_SHOWN = 3


class Found(NamedTuple):
    """The images and objects of a data set.

    Attributes:
        content: lists in COCO's format with checked entries; objects of VOC may have "difficult" 1.
        image_root: folder to which the "file_name" of an image is relative.
        names: of the images by the number that is their "id", where the dataset dicts have a name
            as image_id: in YOLO's and VOC's format. Empty otherwise.
        notes: what was noticed, a sentence each, for the log and for reports.
    """

    content: Content
    image_root: str
    names: Mapping[int, str] = MappingProxyType({})
    notes: tuple[str, ...] = ()


def coco_content(found: Found) -> dict[str, Any]:
    """Return the content of a COCO file whose images have the ids of the dataset dicts."""
    names, content = found.names, found.content
    if not names:
        return dict(content)
    images = [{**image, "id": names[image["id"]]} for image in content["images"]]
    objects = [{**each, "image_id": names[each["image_id"]]} for each in content["annotations"]]
    return {**content, "images": images, "annotations": objects}


# Height and width by path, time and size of the file: a data set is loaded several times in a run.
_sizes: dict[tuple[str, int, int], tuple[int, int]] = {}


def image_sizes(paths: Sequence[Path], what: str) -> tuple[list[tuple[int, int] | None], list[str]]:
    """Return the displayed (height, width) of images, from their headers.

    Args:
        paths: image files.
        what: of the progress bar.

    Returns:
        None for an image that cannot be read, and the reasons.
    """
    with tqdm(desc=what, total=len(paths), leave=False, delay=2, unit="image") as bar:
        found = map_in_threads(_size_or_fault, paths, _THREADS, on_done=bar.update)
    faults = [fault for fault in found if isinstance(fault, str)]
    return [None if isinstance(size, str) else size for size in found], faults


def _size_or_fault(path: Path) -> tuple[int, int] | str:
    try:
        stat = path.stat()
        key = str(path), stat.st_mtime_ns, stat.st_size
        if key not in _sizes:
            _sizes[key] = inspect_image(str(path))
        return _sizes[key]
    except FileNotFoundError:
        return f"{path}: missing"
    except BrokenExample as error:
        return f"{path}: {error.reason}"
    except OSError as error:
        return f"{path}: {error.strerror}"


def polygon_area(points: np.ndarray) -> float:
    """Return the area of a polygon by the shoelace formula.

    Args:
        points: # shape: (N, 2)
    """
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def some(names: Sequence[object], shown: int = _SHOWN) -> str:
    """Return the first of several names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(map(str, names[:shown])) + more
