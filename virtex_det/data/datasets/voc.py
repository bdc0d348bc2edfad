"""Readers of PASCAL VOC's image sets and XML files, with errors that name file and object."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from virtex_det.data.datasets.ids import check_unique
from virtex_det.errors import UserError
from virtex_det.text_files import read_bytes, read_text, split_lines

CORNERS = ("xmin", "ymin", "xmax", "ymax")
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?", re.ASCII)


class VOCObject(NamedTuple):
    """An annotated object."""

    name: str
    # xmin, ymin, xmax, ymax as in the file: counted from 1, last pixel included
    box: tuple[float, float, float, float]
    difficult: bool


class VOCImage(NamedTuple):
    """The content of an image's XML file."""

    height: int
    width: int
    objects: tuple[VOCObject, ...]


def image_set_file(folder: str | Path, split: str) -> Path:
    """Return the file with the names of a split's images."""
    return Path(folder) / "ImageSets" / "Main" / f"{split}.txt"


def annotation_path(folder: str | Path, image: str) -> Path:
    """Return the annotation file of an image."""
    return Path(folder) / "Annotations" / f"{image}.xml"


def read_image_set(folder: str | Path, split: str) -> list[str]:
    """Read the names of a split's images.

    Args:
        folder: folder with ``ImageSets/Main``.
        split: name of the image set, such as "test".

    Raises:
        UserError: the file is missing or empty, has an image twice, or a line is not an image name.
    """
    path = image_set_file(folder, split)
    lines = split_lines(read_text(path, "the names of the images, one a line"))
    names = {number: line.strip() for number, line in enumerate(lines, start=1) if line.strip()}
    for number, name in names.items():
        if re.search(r"[\s#/\\]", name):
            raise UserError(
                f"{path}, line {number} is {name!r:.80}; expected the name of one image, without "
                "suffix, spaces, # and slashes.\n"
                "VOC's lists per class (dog_train.txt) have two columns: use the lists of all "
                "classes."
            )
    if not names:
        raise UserError(f"{path} is empty; expected the names of the images, one a line.")
    try:
        check_unique(list(names.values()), "image", "Name each image once.")
    except UserError as error:
        raise UserError(f"{path} names an image twice: {error}") from error
    return list(names.values())


def find_annotations(folder: str | Path, split: str) -> dict[str, Path]:
    """Return the annotation files of a split, by the names of its images.

    Raises:
        UserError: a file is missing, or as ``read_image_set``.
    """
    paths = {image: annotation_path(folder, image) for image in read_image_set(folder, split)}
    missing = [path for path in paths.values() if not path.is_file()]
    if missing:
        raise UserError(
            f"{missing[0]} is missing or is not a regular file ({len(missing)} of {len(paths)} "
            f"such files), but {image_set_file(folder, split)} lists it.\n"
            "Unpack the annotations again, or remove the images from the list."
        )
    return paths


def read_voc_image(path: Path, *, needs_size: bool = True) -> VOCImage:
    """Read the annotations of an image.

    Args:
        path: XML file.
        needs_size: False accepts a missing or empty <size>, and returns 0 for it.

    Raises:
        UserError: the file is missing or not XML, or an object has a missing or invalid element.
    """
    content = read_bytes(path, "the annotations of an image of the image set")
    if b"<!ENTITY" in content:
        raise UserError(f"{path} defines XML entities, which VOC's files do not have. Remove them.")
    try:
        root = ET.fromstring(content)
    except (ET.ParseError, LookupError, ValueError) as error:
        raise UserError(
            f"{path} is not XML: {error}\nMake the file again, or correct that place."
        ) from error
    if root.tag.casefold() != "annotation":
        raise UserError(
            f"{path} is not in VOC's format: it begins with <{root.tag[:40]}>; expected "
            "<annotation>."
        )
    _check_tags(path, root)
    height, width = (_side(path, root, side, needs_size) for side in ("height", "width"))
    if not (height and width):
        height = width = 0
    entries = root.findall("object")
    return VOCImage(
        height,
        width,
        tuple(_object(path, number, entry) for number, entry in enumerate(entries, start=1)),
    )


def check_class(path: Path, number: int, name: str, class_names: Sequence[str]) -> None:
    """Refuse the name of an object that is not a class.

    Args:
        path: XML file.
        number: number of the object in the file, counted from 1.
        name: its name.
        class_names: classes of the dataset's registration.
    """
    if name not in class_names:
        raise UserError(
            f"{path}: object {number} is {name!r}, which is not one of the {len(class_names)} "
            f"registered classes of the data set: {', '.join(class_names)[:200]}\n"
            "Give the object and the class the same name."
        )


def check_for_detectron2s_evaluator(path: Path) -> None:
    """Refuse an XML file without the elements that Detectron2's VOC evaluator needs.

    Raises:
        UserError: an object has no pose, truncated or difficult, or its corners are not whole
            numbers.
    """
    for number, entry in enumerate(ET.fromstring(read_bytes(path)).findall("object"), start=1):
        needed = {tag: entry.findtext(tag) for tag in ("truncated", "difficult")}
        needed |= {corner: entry.findtext(f"bndbox/{corner}") for corner in CORNERS}
        wrong = [
            tag for tag, text in needed.items() if not re.fullmatch(r"\s*-?[0-9]+\s*", text or "")
        ]
        if entry.find("pose") is None:
            wrong.append("pose")
        if wrong:
            raise UserError(
                f"{path}: object {number} has no {wrong[0]} that Detectron2's own evaluator can "
                "read (a whole number; text for pose).\n"
                "Set TEST.METRICS_LIBRARY hotcoco, which does not need it, or correct the file."
            )


def _check_tags(path: Path, root: ET.Element) -> None:
    """Refuse <object> elements that would be ignored, by their place or their case."""
    direct = set(root.findall("object"))
    for element in root.iter():
        if (
            isinstance(element.tag, str)
            and element.tag.casefold() == "object"
            and element not in direct
        ):
            raise UserError(
                f"{path} has an <{element.tag}> that is not read: expected <object>, directly in "
                f"<{root.tag}>."
            )


def _side(path: Path, root: ET.Element, side: str, is_needed: bool) -> int:
    text = (root.findtext(f"size/{side}") or "").strip()
    if not is_needed and text in ("", "0"):
        return 0
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
        found = f"the {side} {text!r:.40} in <size>" if text else f"no {side} in <size>"
        raise UserError(f"{path} has {found}; expected a whole number of pixels above 0.")
    return int(text)


def _object(path: Path, number: int, entry: ET.Element) -> VOCObject:
    for tag in ("name", "bndbox"):
        found = len(entry.findall(tag))
        if found != 1:
            raise UserError(f"{path}: object {number} has {found or 'no'} <{tag}>; expected one.")
    name = entry.findtext("name") or ""
    if not name.strip():
        raise UserError(f"{path}: object {number} has an empty <name>; expected its class.")
    what = f"{path}: object {number} ({name[:40]})"
    left, top, right, bottom = (_coordinate(what, entry, corner) for corner in CORNERS)
    if right < left or bottom < top:
        raise UserError(
            f"{what} has the reversed box xmin {left:g}, ymin {top:g}, xmax {right:g}, ymax "
            f"{bottom:g}, which no detection can match.\n"
            "Swap its corners, or remove the object."
        )
    difficult = (entry.findtext("difficult", "0")).strip()
    if difficult not in ("0", "1"):
        raise UserError(f"{what} has difficult {difficult!r:.40}; expected 0 or 1.")
    return VOCObject(name, (left, top, right, bottom), difficult == "1")


def _coordinate(what: str, entry: ET.Element, corner: str) -> float:
    text = (entry.findtext(f"bndbox/{corner}") or "").strip()
    if not _NUMBER.fullmatch(text) or abs(float(text)) > 1e9:
        raise UserError(f"{what} has {corner} {text!r:.40}; expected a number of pixels.")
    return float(text)
