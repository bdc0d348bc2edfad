"""Readers of annotation files instead of Detectron2's, which merge equal ids and name no file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from virtex_det.data.classes import compare_classes
from virtex_det.data.datasets.annotation_content import read_annotations
from virtex_det.data.datasets.by_name import find_source, load_objects
from virtex_det.data.datasets.ids import check_coco_ids
from virtex_det.data.datasets.instances import make_dicts, registration_of
from virtex_det.data.datasets.objects import check_objects
from virtex_det.data.datasets.voc import (
    check_class,
    find_annotations,
    image_set_file,
    read_voc_image,
)
from virtex_det.errors import UserError
from virtex_det.text_files import starts_with_mark


def read_instances(name: str, *, boxes_alone: bool = False) -> list[dict[str, Any]] | None:
    """Check a dataset's annotation file, or all files of VOC, and load JSON as Detectron2 would.

    Args:
        name: name of a registered dataset; one without such files passes.
        boxes_alone: as for ``make_dicts``.

    Returns:
        The dataset dicts; None if the registered function must make them.

    Raises:
        UserError: an id is invalid or occurs twice, or a file is missing or broken.
    """
    if find_source(name):
        return load_objects(name, boxes_alone=boxes_alone)
    if _is_voc(name):
        _check_voc_files(name)
    registration = registration_of(name)
    metadata = MetadataCatalog.get(name)
    kind = registration.style if registration else metadata.get("evaluator_type")
    json_file = registration.json_file if registration else str(metadata.get("json_file") or "")
    if (
        kind not in ("coco", "lvis", None)
        or "://" in json_file
        or not (registration or json_file.endswith(".json"))
    ):
        return None
    content = _read(json_file, is_cocos=bool(kind))
    _check(name, content, kind, json_file)
    if registration is None:
        return None
    try:
        return make_dicts(content, registration, boxes_alone=boxes_alone)
    except UserError as error:
        raise UserError(f"{json_file} cannot be used: {error}") from error


def _check(name: str, content: Any, kind: str | None, json_file: str) -> None:
    # A user's own function may read another format, unless COCO's or LVIS's evaluation reads the
    # file too.
    if kind or (isinstance(content, dict) and "images" in content):
        check_coco_ids(content, json_file)
    if kind == "coco" and is_read_by_detectron2(name):
        _check_registered_classes(name, content, json_file)
    if kind:
        check_objects(content, kind, json_file)


def _read(json_file: str, is_cocos: bool) -> Any:
    """Return a file's content; None for another format that a user's own function reads."""
    try:
        content = read_annotations(json_file, "an annotation file in COCO's format")
    except UserError:
        if is_cocos:
            raise
        return None
    if is_cocos and starts_with_mark(json_file):
        raise UserError(
            f"{json_file} begins with a byte order mark, which pycocotools and Detectron2's "
            "reader do not accept.\n"
            f"Remove it: sed -i '1s/^\\xEF\\xBB\\xBF//' {json_file}"
        )
    return content


def _check_registered_classes(name: str, content: Mapping[str, Any], json_file: str) -> None:
    """Check a file's classes, in the order of their ids, against its dataset's registration."""
    registered = MetadataCatalog.get(name).get("thing_classes")
    categories = content.get("categories")
    if not registered or not categories or not all("name" in entry for entry in categories):
        return
    in_file = [
        str(entry["name"])
        for entry in sorted(categories, key=lambda entry: (str(type(entry["id"])), entry["id"]))
    ]
    try:
        compare_classes(
            {f"registration of {name}": [*map(str, registered)], json_file: in_file},
            _REGISTER_AS_IN_FILE,
        )
    except UserError as error:
        raise UserError(f"{json_file} cannot be used as {name}: {error}") from error


_REGISTER_AS_IN_FILE = (
    "Register the data set with thing_classes in the order of the file's category ids, or without "
    "thing_classes (metadata {}): then the names are read from the file."
)


def is_read_by_detectron2(name: str) -> bool:
    """Return whether a dataset's registered function is one of Detectron2's."""
    return getattr(DatasetCatalog[name], "__module__", "").startswith("detectron2.")


def is_users_own(name: str) -> bool:
    """Return whether a dataset's registered function is neither Detectron2's nor this package's."""
    return not getattr(DatasetCatalog[name], "__module__", "").startswith(
        ("detectron2.", "virtex_det.")
    )


def _is_voc(name: str) -> bool:
    metadata = MetadataCatalog.get(name)
    # Detectron2's register_pascal_voc sets no evaluator_type.
    kind = metadata.get("evaluator_type", "pascal_voc")
    return kind == "pascal_voc" and all(metadata.get(key) for key in ("dirname", "split", "year"))


def _check_voc_files(name: str) -> None:
    """Check all files of VOC; the errors of Detectron2's reader name neither file nor object."""
    metadata = MetadataCatalog.get(name)
    folder, split = Path(metadata.dirname), metadata.split
    twice = [title for title, count in Counter(metadata.thing_classes).items() if count > 1]
    if twice:
        raise UserError(
            f"data set {name} is registered with the class {twice[0]!r} twice. VOC's files have "
            "class names only, which do not tell the two apart.\nRegister each class once."
        )
    paths = find_annotations(folder, split).values()
    if len(paths) == 1 and is_read_by_detectron2(name):
        raise UserError(
            f"{image_set_file(folder, split)} has one image; Detectron2's reader needs two or "
            "more.\nAdd an image, or name the data voc:FOLDER:SPLIT, which reads one image, too."
        )
    if starts_with_mark(image_set_file(folder, split)) and is_read_by_detectron2(name):
        raise UserError(
            f"{image_set_file(folder, split)} begins with a byte order mark, which Detectron2's "
            "reader reads as part of a name. Save it as UTF-8 without one."
        )
    try:
        for path in paths:
            _check_voc_image(path, metadata.thing_classes)
    except UserError as error:
        raise UserError(f"data set {name}: {folder} cannot be used\n  {error}") from error


def _check_voc_image(path: Path, class_names: Sequence[str]) -> None:
    for number, entry in enumerate(read_voc_image(path).objects, start=1):
        check_class(path, number, entry.name, class_names)
