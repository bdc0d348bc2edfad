"""Data sets of objects whose name says where they lie: coco:, lvis:, yolo:, voc: and folder:.

How a command takes such a name, as one in DATASETS.TRAIN:

    load_dataset(name)          dataset dicts; registers the name at first use
    MetadataCatalog.get(name)   thing_classes, evaluator_type, image_root; classes once loaded
    read_found(name)            images, objects and categories in COCO's format, whatever the files
                                are, with notes on what was odd: to show, to check or to convert
    read_ground_truth(name)     the ground truth for AP (virtex_det.evaluation.detection)
    find_source(name)           the parts of the name; None for a data set that is not one of these

All readers return COCO's format, so that one set of checks, one maker of dataset dicts and one
evaluation serve all of them. VOC's data are evaluated by VOC's metrics, as their difficult objects
mean nothing to COCO's.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog

from virtex_det.config.data_names import EVALUATORS, voc_year
from virtex_det.data.datasets.annotation_content import read_annotations, read_once
from virtex_det.data.datasets.class_rules import Rules, with_classes
from virtex_det.data.datasets.exports import Mended
from virtex_det.data.datasets.folders import find_files
from virtex_det.data.datasets.found import Found
from virtex_det.data.datasets.instances import Registration, make_dicts
from virtex_det.data.datasets.voc_folders import read_voc
from virtex_det.data.datasets.yolo import read_yolo
from virtex_det.errors import UserError
from virtex_det.image_files import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)

FORMS = {
    "coco": "coco:FILE.json:IMAGES",
    "lvis": "lvis:FILE.json:IMAGES",
    "yolo": "yolo:data.yaml:SPLIT",
    "voc": "voc:FOLDER:SPLIT",
    "folder": "folder:IMAGES",
}
UNLABELLED = "unlabelled"  # evaluator_type of images without labels

_told: set[tuple[str, str]] = set()


class Source(NamedTuple):
    """The parts of a name.

    Attributes:
        kind: the part before the first colon.
        place: file or folder of the labels, or of images without labels.
        images: folder of the images, of COCO's and LVIS's format.
        split: of YOLO's and VOC's format.
        share: of the images that VOC's split "val" is.
        rules: of its classes, as DATASETS.CLASSES; empty for the classes of the data.
    """

    kind: str
    place: Path
    images: Path = Path()
    split: str = ""
    share: float | None = None
    rules: Rules = ()


def register_objects(name: str, place: str, rules: Rules = ()) -> None:
    """Register a data set of objects under the name that says where it lies.

    Args:
        name: the whole name.
        place: its part after the first colon.
        rules: of its classes, as DATASETS.CLASSES.

    Raises:
        UserError: the name does not have its form.
    """
    source = _parse(name, place)._replace(rules=rules)
    kind = source.kind
    DatasetCatalog.register(name, lambda: load_objects(name))
    metadata: dict[str, Any] = {"source": source, "place": str(source.place)}
    metadata["evaluator_type"] = EVALUATORS.get(kind, UNLABELLED)
    if kind in ("coco", "lvis"):
        metadata |= {"json_file": str(source.place), "image_root": str(source.images)}
    if kind == "voc":
        metadata["year"] = voc_year(source.place)
    MetadataCatalog.get(name).set(**metadata)


def use_classes(name: str, rules: Rules) -> None:
    """Let a data set of objects have the classes of DATASETS.CLASSES from now on.

    Args:
        name: a name that says where the data lie; it is registered, anew if its classes differ.
        rules: of ``as_rules``.

    Raises:
        UserError: the name does not have its form.
    """
    source = find_source(name)
    if source is not None and source.rules == rules:
        return
    if source is not None:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    register_objects(name, name.partition(":")[2], rules)


def find_source(name: str) -> Source | None:
    """Return the parts of a registered name that says where its objects lie; None for others."""
    return MetadataCatalog.get(name).get("source") if name in MetadataCatalog.list() else None


def read_found(name: str) -> Found:
    """Read a registered data set in COCO's format, with the classes of DATASETS.CLASSES.

    Raises:
        UserError: a file is missing or invalid.
    """
    source = MetadataCatalog.get(name).source
    return with_classes(read_files(source), source.rules, name)


def read_files(source: Source) -> Found:
    """Read a data set in COCO's format, with the classes of its files.

    Raises:
        UserError: a file is missing or invalid.
    """
    key = source._replace(rules=())
    return read_once(key, lambda: _READERS[source.kind](source))


def load_objects(name: str, *, boxes_alone: bool = False) -> list[dict[str, Any]]:
    """Load the dataset dicts of a registered name, and set its classes.

    Args:
        name: a name that ``find_source`` knows.
        boxes_alone: as for ``make_dicts``.

    Raises:
        UserError: as ``read_found``.
    """
    found = read_found(name)
    for note in found.notes:
        _tell(name, note)
    metadata = MetadataCatalog.get(name)
    if metadata.source.kind == "folder":
        return [
            {
                "file_name": str(Path(found.image_root) / image["file_name"]),
                "image_id": image["file_name"],
            }
            for image in found.content["images"]
        ]
    place = str(metadata.source.place)
    registration = Registration("coco", place, found.image_root, name)
    dicts = make_dicts(found.content, registration, boxes_alone=boxes_alone, by_name=True)
    _add_rest(dicts, found)
    _set_metadata(metadata, found.content["categories"])
    return dicts


def _set_metadata(metadata: Metadata, categories: list[dict[str, Any]]) -> None:
    """Set what Detectron2 knows of LVIS's classes, and of COCO's keypoints, by their categories."""
    if metadata.source.kind == "lvis":
        metadata.class_image_count = [
            {"id": category["id"], "image_count": category.get("image_count", 0)}
            for category in categories
        ]
    with_points = [category for category in categories if category.get("keypoints")]
    if len(with_points) == 1:
        names = list(map(str, with_points[0]["keypoints"]))
        pairs = [(name, name.replace("left", "right")) for name in names if "left" in name]
        metadata.keypoint_names = names
        metadata.keypoint_flip_map = [pair for pair in pairs if pair[1] in names]


def _tell(name: str, note: str) -> None:
    if (name, note) not in _told:
        _told.add((name, note))
        logger.warning("data set %s: %s", name, note)


def _add_rest(dicts: list[dict[str, Any]], found: Found) -> None:
    """Add to dataset dicts what COCO's format lacks: image names, LVIS's lists of categories."""
    images = {image["id"]: image for image in found.content["images"]}
    for entry in dicts:
        image = images[entry["image_id"]]
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            if key in image:
                entry[key] = image[key]
        entry["image_id"] = found.names.get(image["id"], image["id"])


def _parse(name: str, place: str) -> Source:
    kind = name.partition(":")[0]
    if "://" in place:
        raise UserError(
            f"{name!r} names an address, and data are never fetched.\n"
            "Download them, and name the place on your disk."
        )
    if kind == "folder":
        return Source(kind, Path(place).expanduser())
    first, colon, last = place.rpartition(":")
    if not (colon and first and last):
        raise UserError(f"{name!r} does not have the form {FORMS[kind]}")
    if kind in ("coco", "lvis"):
        return Source(kind, Path(first).expanduser(), Path(last).expanduser())
    share = None
    if kind == "voc" and ":" in first and _is_number(last):
        share = float(last)
        first, _, last = first.rpartition(":")
        if not 0 < share < 1 or not first:
            raise UserError(f"{name!r}: the share of validation must be above 0 and below 1.")
    return Source(kind, Path(first).expanduser(), split=last, share=share)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal() and text.isascii()


def _read_file(source: Source) -> Found:
    """Read an annotation file in COCO's or LVIS's format."""
    file, images, style = str(source.place), source.images, source.kind
    content = read_annotations(file, f"an annotation file in {style.upper()}'s format")
    mended = Mended(content, file, images, style)
    content = mended.content
    if style == "lvis":
        content = {**content, "images": _lvis_files(content["images"], images, file)}
    return Found(content, str(images), mended.names, tuple(mended.notes))


def _lvis_files(images: list[dict[str, Any]], root: Path, source: str) -> list[dict[str, Any]]:
    """Return LVIS's images with a file_name in a folder.

    LVIS names files by coco_url, whose last folder is the split: val has images of train2017 too.
    Its folder is looked for in the root; without it the images lie in the root itself.
    """
    folders: dict[str, bool] = {}
    named = []
    for image in images:
        url, file = image.get("coco_url"), image.get("file_name")
        if not url and not file:
            raise UserError(
                f"{source} cannot be used: image {image['id']} has neither coco_url nor file_name."
            )
        if url:
            folder, _, file = str(url).rpartition("/")
            split = folder.rpartition("/")[2]
            if folders.setdefault(split, (root / split).is_dir()):
                file = f"{split}/{file}"
        named.append({**image, "file_name": file})
    return named


def _read_folder(source: Source) -> Found:
    files = find_files(source.place, IMAGE_SUFFIXES)
    if not files:
        raise UserError(
            f"{source.place} has no image; expected files that end in {', '.join(IMAGE_SUFFIXES)}."
        )
    names = [path.relative_to(source.place).as_posix() for path in files]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names, 1)]
    content = {"images": images, "annotations": [], "categories": []}
    return Found(content, str(source.place), dict(enumerate(names, 1)))


_READERS: dict[str, Callable[[Source], Found]] = {
    "coco": _read_file,
    "lvis": _read_file,
    "yolo": lambda source: read_yolo(source.place, source.split),
    "voc": lambda source: read_voc(source.place, source.split, source.share),
    "folder": _read_folder,
}
