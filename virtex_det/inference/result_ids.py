"""The ids of images and categories in a file of detections, as the ground truth has them."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.data import MetadataCatalog

from virtex_det.config.data_names import OBJECTS, is_by_name
from virtex_det.data.classes import model_classes
from virtex_det.data.datasets.annotation_content import read_annotations
from virtex_det.data.datasets.class_rules import as_rules
from virtex_det.data.datasets.ids import check_coco_ids
from virtex_det.data.following import give_classes
from virtex_det.data.pictures import load_image_files
from virtex_det.errors import UserError
from virtex_det.inference.detector import Detector


class FileIds(NamedTuple):
    """The ids in an annotation file.

    Attributes:
        file: its name.
        images: of each picture, in the order of the pictures.
        categories: of each category, by its name.
    """

    file: str
    images: list[int | str]
    categories: dict[str, int]


class Ids(NamedTuple):
    """The ids that images and categories have in a results file.

    Attributes:
        images: of each picture, in the order of the pictures.
        categories: of each class of the detector, by its number.
    """

    images: Iterable[int | str]
    categories: Sequence[int]


def own_ids(detector: Detector, images: Iterable[int | str] | None = None) -> Ids:
    """Return ids for pictures that no annotation file names: 1, 2, 3 and so on, or those given.

    Categories have the ids of the detector's data set; where that is not registered here, class 0
    has the id 1, class 1 the id 2, and so on.
    """
    metadata = detector.predictor.metadata
    numbers: Mapping[int, int] = metadata.get("thing_dataset_id_to_contiguous_id", {})
    of_class = {number: category for category, number in numbers.items()}
    categories = [of_class.get(number, number + 1) for number in range(number_of_classes(detector))]
    return Ids(count(1) if images is None else images, categories)


def ids_of_dataset(detector: Detector, name: str, images: Iterable[int | str]) -> Ids:
    """Return the ids of a loaded data set's pictures, and of its categories if it has the classes.

    Its own numbers of categories are those of its ground truth. If it lacks a class of the
    detector, it gets the classes of DATASETS.CLASSES with which the detector was trained. If it
    lacks one still there is nothing to compare, and the ids are ``own_ids``.
    """
    found = _categories(detector, name)
    rules = as_rules(detector.cfg.DATASETS.CLASSES)
    if not found and rules and is_by_name(name, OBJECTS):
        give_classes([name], rules)
        load_image_files(name)  # sets the classes
        found = _categories(detector, name)
    return Ids(images, found) if found else own_ids(detector, images)


def read_ids(annotations: str | Path, paths: Sequence[Path]) -> FileIds:
    """Return the ids of pictures and of all categories in an annotation file of COCO or LVIS.

    A picture is found by the end of its path.

    Raises:
        UserError: the file cannot be read, or does not name a picture.
    """
    content = read_annotations(annotations, "an annotation file in COCO's format")
    check_coco_ids(content, str(annotations))
    images = {_file_name(entry): entry["id"] for entry in content.get("images", [])}
    found = [_id_of(path, images) for path in paths]
    strange = [path for path, number in zip(paths, found, strict=True) if number is None]
    if strange:
        names = ", ".join(list(images)[:3])
        what = f"Its images have names such as {names}." if names else "It has no images."
        raise UserError(
            f"{len(strange)} of {len(paths)} pictures are not in {annotations}, "
            f"e.g. {strange[0]}.\n{what}"
        )
    categories = {str(entry.get("name")): entry["id"] for entry in content.get("categories", [])}
    image_ids = [number for number in found if number is not None]
    return FileIds(str(annotations), image_ids, categories)


def ids_of_file(detector: Detector, ids: FileIds) -> Ids:
    """Return the ids of an annotation file for a detector, whose classes are found by name.

    Raises:
        UserError: a class of the detector is not a category of the file.
    """
    unknown = [name for name in detector.classes if name not in ids.categories]
    if unknown or not detector.classes:
        what = (
            f"The detector's class {unknown[0]} is not a category of"
            if unknown
            else "The detector's classes have no names to compare with the categories of"
        )
        raise UserError(
            f"{what} {ids.file}, which has {', '.join(ids.categories):.200}.\n"
            "Leave --annotations out: the ids are then written beside the detections."
        )
    return Ids(ids.images, [ids.categories[name] for name in detector.classes])


def number_of_classes(detector: Detector) -> int:
    """Return how many classes a detector has, known by name or not; 0 if neither is known."""
    classes = model_classes(detector.cfg)
    return len(detector.classes) or (classes.number if classes else 0)


def _categories(detector: Detector, name: str) -> list[int]:
    """Return a loaded data set's ids of the detector's classes; [] unless it has them all."""
    metadata = MetadataCatalog.get(name)
    names = metadata.get("thing_classes", ())
    numbers = metadata.get("thing_dataset_id_to_contiguous_id", {})
    ids = {names[number]: category for category, number in numbers.items()}
    return [ids[each] for each in detector.classes] if {*detector.classes} <= {*ids} else []


def _file_name(entry: Mapping[str, Any]) -> str:
    """Return an image's name; LVIS gives an address instead, which ends in split and file."""
    return str(entry.get("file_name") or "/".join(str(entry.get("coco_url", "")).split("/")[-2:]))


def _id_of(path: Path, images: Mapping[str, int | str]) -> int | str | None:
    """Return the id of the image with the longest name that the path ends in; None without one."""
    parts = path.absolute().parts
    for length in range(len(parts), 0, -1):
        name = "/".join(parts[-length:])
        if name in images:
            return images[name]
    return None
