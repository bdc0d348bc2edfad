"""COCO files as labelling tools export them: oddities are mended by stated rules and counted.

What Label Studio, CVAT, Roboflow, VIA and the converters of labelme write differs from COCO's
format in small things, each of which has one reading. Files in another format are refused, with its
name.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pycocotools.mask as mask_tools

from virtex_det.data.datasets.folders import find_files
from virtex_det.data.datasets.found import image_sizes, polygon_area
from virtex_det.data.datasets.ids import LARGEST_ID, check_coco_ids, parse_id
from virtex_det.data.datasets.objects import check_objects, is_number
from virtex_det.data.datasets.typed_annotations import TypedContent
from virtex_det.errors import UserError
from virtex_det.image_files import IMAGE_SUFFIXES
from virtex_det.run_lengths import check_run_lengths, is_run_lengths

_LOOKED_AT = 20  # images whose files are looked for before all are
_POLYGONS = 20_000  # checked at most, at even distances; more take seconds
_PIXELS_BEYOND = 2.0  # allowed distance of a polygon outside its image, by rounding
_MANY_CROWDS = 0.5
_BACKGROUND = ("_background_", "__ignore__")  # labelme's


class Mended:
    """A file's content while it is mended, with notes on what was odd.

    Attributes:
        content: the lists in COCO's format; neither it nor its entries are changed in place.
        names: of images whose ids are text, by the number that they get.
        notes: what was odd, a sentence each.
    """

    def __init__(self, content: Mapping[str, Any], file: str, images: Path, style: str) -> None:
        """
        Args:
            content: the parsed file.
            file: its path.
            images: folder of the images.
            style: "coco" or "lvis".

        Raises:
            UserError: the file has another format, or an entry cannot be used; names the entry.
        """
        _refuse_other_forms(content, file)
        if not isinstance(content, dict):
            check_coco_ids(content, file)  # says what was expected
        if not content.get("images"):
            raise UserError(
                f'{file} cannot be used: it has no "images"; expected the lists images, '
                "annotations and categories, as in COCO's format."
            )
        self.content, self.file, self.images, self.style = content, file, images, style
        self.notes: list[str] = []
        if not isinstance(content, TypedContent):
            self._mend_annotations()
        self._mend_images()
        check_coco_ids(self.content, file)
        check_objects(self.content, style, file)
        self._number_text_ids()
        self._fill_annotations()
        self._note_classes()
        self._note_places()

    def _replace(self, name: str, entries: list[Any]) -> None:
        replaced = {**self.content, name: entries}
        if isinstance(self.content, TypedContent) and name == "images":
            typed = TypedContent(replaced)
            typed.columns = self.content.columns
            replaced = typed
        self.content = replaced

    def _note(self, count: int, what: str, first: object) -> None:
        if count:
            self.notes.append(f"{count} {what}; the first: {first}")

    def _mend(self, name: str, mend: Callable[[Any], Any], what: str) -> None:
        """Replace the entries of a list that a function changes, and count them."""
        entries = self.content.get(name)
        if not isinstance(entries, list):
            return
        try:
            mended = [mend(entry) if isinstance(entry, dict) else entry for entry in entries]
        except UserError as error:
            raise UserError(f"{self.file} cannot be used: {error}") from error
        changed = [new for old, new in zip(entries, mended, strict=True) if new is not old]
        if changed:
            self._note(len(changed), f"{name} {what}", _name(changed[0]))
            self._replace(name, mended)

    def _mend_annotations(self) -> None:
        """Mend what makes annotations invalid; the others are decoded with checks."""
        images, categories = self.content.get("images"), self.content.get("categories")
        keys = {"image_id": _ids_in(images), "category_id": _ids_in(categories)}
        self._mend("annotations", _with_whole_numbers, "have whole numbers written as 1.0 or True")
        for name in ("images", "categories"):
            self._mend(name, _with_whole_numbers, "have whole numbers written as 1.0")
        self._mend(
            "annotations",
            lambda entry: _with_known_ids(entry, keys),
            "name an id as text that is a number in its list, or the reverse: read as that id",
        )
        self._mend(
            "annotations", _with_nested_polygon, "have one polygon as a flat list, as VIA writes it"
        )
        self._mend("annotations", _with_box_of_mask, "have no bbox; the box of the mask is used")
        entries = self.content.get("annotations")
        is_list = isinstance(entries, list) and all(isinstance(each, dict) for each in entries)
        if is_list and entries and not any("id" in each for each in entries):
            self.notes.append(f"none of {len(entries)} annotations has an id; they are numbered")
            self._replace(
                "annotations", [{"id": number, **each} for number, each in enumerate(entries, 1)]
            )

    def _mend_images(self) -> None:
        self._mend("images", _with_slashes, "have backslashes in file_name, read as slashes")
        if self.style == "coco":  # LVIS names files by coco_url
            self._find_files()
            self._measure()

    def _find_files(self) -> None:
        """Take the file of an image by its name alone where its folder is not that of the images.

        Label Studio's files have folders of its server, others an absolute path or one folder too
        many.
        """
        entries = self.content.get("images")
        if not isinstance(entries, list):
            return
        looked_at = entries[:: len(entries) // _LOOKED_AT + 1]
        if all(self._has_file(entry) for entry in looked_at):
            return
        files: dict[str, list[str]] = {}
        for path in find_files(self.images, IMAGE_SUFFIXES) if self.images.is_dir() else ():
            files.setdefault(path.name, []).append(path.relative_to(self.images).as_posix())
        if not files:
            return

        def found(entry: dict[str, Any]) -> dict[str, Any]:
            places = files.get(os.path.basename(str(entry.get("file_name"))), [])  # noqa: PTH119
            if len(places) != 1 or self._has_file(entry):
                return entry
            return {**entry, "file_name": places[0]}

        self._mend(
            "images", found, f"are found in another folder below {self.images}, by file name alone"
        )

    def _has_file(self, entry: Any) -> bool:
        file = entry.get("file_name") if isinstance(entry, dict) else None
        return isinstance(file, str) and os.path.isfile(os.path.join(self.images, file))  # noqa: PTH113, PTH118

    def _measure(self) -> None:
        """Read the sizes that a file lacks from the images."""
        entries = self.content.get("images")
        if not isinstance(entries, list):
            return
        lacking = [
            place
            for place, entry in enumerate(entries)
            if isinstance(entry, dict) and not (entry.get("height") and entry.get("width"))
        ]
        if not lacking:
            return
        paths = [self.images / str(entries[place].get("file_name")) for place in lacking]
        sizes, faults = image_sizes(paths, "sizes of images")
        if faults:
            raise UserError(
                f"{self.file} cannot be used: {len(lacking)} images have no height or width, and "
                f"{len(faults)} of these cannot be read, e.g. {faults[0]}.\n"
                "Write height and width into the file, or complete the images."
            )
        mended = list(entries)
        for place, size in zip(lacking, sizes, strict=True):
            if size:
                mended[place] = {**entries[place], "height": size[0], "width": size[1]}
        self._note(
            len(lacking),
            "images have no height or width, which are read from their files",
            _name(mended[lacking[0]]),
        )
        self._replace("images", mended)

    def _number_text_ids(self) -> None:
        """Number images and categories whose ids are text, as metrics need."""
        self.names = self._number("images", "image_id")
        self._number("categories", "category_id")

    def _number(self, name: str, field: str) -> dict[int, str]:
        """Number the entries of a list if their ids are text, and return these by their number."""
        owners = self.content.get(name, [])
        if not owners or not isinstance(owners[0]["id"], str):
            return {}
        ids = dict(enumerate(sorted(owner["id"] for owner in owners), start=1))
        numbers = {text: number for number, text in ids.items()}
        self._replace(name, [{**owner, "id": numbers[owner["id"]]} for owner in owners])
        entries = self.content.get("annotations", [])
        kept = [{**each, field: numbers[each[field]]} for each in entries if each[field] in numbers]
        self._replace("annotations", kept)
        return ids

    def _fill_annotations(self) -> None:
        """Add areas and crowds, which metrics need, and take empty polygons for no mask."""
        self._mend(
            "annotations", _without_empty_mask, "have an empty mask, which counts as no mask"
        )
        self._mend(
            "annotations",
            _with_area,
            "have no valid area; the area of the mask, or else of the box, is used",
        )
        if self.style == "coco":
            self._mend("annotations", _with_crowd, "have no iscrowd, read as 0")

    def _note_classes(self) -> None:
        entries = self.content.get("annotations", [])
        used = {entry["category_id"] for entry in entries}
        categories = self.content.get("categories", [])
        groups = {str(category.get("supercategory")) for category in categories}
        for category in categories if self.style == "coco" else ():
            name, group = category["name"], str(category.get("supercategory"))
            is_group = name in groups and group in ("none", "") and len(categories) > 1
            if category["id"] not in used and (is_group or name in _BACKGROUND):
                what = (
                    "the group of the others, as Roboflow writes it,"
                    if is_group
                    else "the background"
                )
                self.notes.append(
                    f"the category {name!r} has no objects and looks like {what}. It counts as a "
                    f'class; DATASETS.CLASSES ["*", ["", {name!r}]] leaves it out'
                )
        crowds = sum(entry.get("iscrowd", 0) for entry in entries)
        if crowds > _MANY_CROWDS * len(entries):
            self.notes.append(
                f"{crowds} of {len(entries)} annotations are crowds (iscrowd 1), as CVAT marks "
                "brush masks: training leaves crowds out. Set iscrowd 0 where they are single "
                "objects"
            )

    def _note_places(self) -> None:
        """Count polygons that reach beyond their image."""
        sizes = {image["id"]: (image["width"], image["height"]) for image in self.content["images"]}
        entries = self.content.get("annotations", [])
        beyond = []
        checked = 0
        for entry in entries[:: len(entries) // _POLYGONS + 1]:
            mask, size = entry.get("segmentation"), sizes.get(entry["image_id"])
            if not isinstance(mask, list) or not mask or size is None:
                continue
            checked += 1
            xs, ys = ([max(part[axis::2], default=0) for part in mask] for axis in (0, 1))
            low = min(min(part, default=0) for part in mask)
            slack = _PIXELS_BEYOND
            if low < -slack or max(xs) > size[0] + slack or max(ys) > size[1] + slack:
                beyond.append(entry["id"])
        if beyond:
            self.notes.append(
                f"{len(beyond)} of {checked} checked polygons reach beyond their image, the first "
                f"of annotation {beyond[0]}: what lies outside counts neither in training nor in "
                "metrics"
            )


def _refuse_other_forms(content: Any, file: str) -> None:
    """Refuse files of tools that are not in COCO's format, by the name of their format."""
    first = content[0] if isinstance(content, list) and content else None
    form = ""
    if isinstance(content, dict):
        annotations = content.get("annotations")
        entry = annotations[0] if isinstance(annotations, list) and annotations else None
        if "_via_img_metadata" in content or _is_via(content):
            form = "VIA's own format; export it as COCO there (Annotation, Export)"
        elif "shapes" in content and "imagePath" in content:
            form = (
                "labelme's file of one image; labelme2coco makes one file in COCO's format of all"
            )
        elif isinstance(entry, dict) and "caption" in entry:
            form = "captions; name them captions:FILE.json:IMAGES"
        elif isinstance(entry, dict) and "segments_info" in entry:
            form = "panoptic annotations; name the file of the instances"
        elif "images" not in content:
            form = 'not in COCO\'s format: it has no "images"; name the file of the annotations'
    elif isinstance(first, dict) and "score" in first and "image_id" in first:
        form = "detections; name the file of the annotations"
    elif isinstance(first, dict) and ("completions" in first or "annotations" in first):
        form = "Label Studio's own format; export it as COCO there"
    if form:
        raise UserError(f"{file} cannot be used: it is {form}.")


def _is_via(content: Mapping[str, Any]) -> bool:
    first = next(iter(content.values()), None)
    return isinstance(first, dict) and {"filename", "regions"} <= first.keys()


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("id", entry.get("file_name", "without id")))


def _ids_in(entries: Any) -> set[Any]:
    if not isinstance(entries, list):
        return set()
    ids = (entry.get("id") for entry in entries if isinstance(entry, dict))
    return {found for found in ids if isinstance(found, int | str)}


def _with_whole_numbers(entry: dict[str, Any]) -> dict[str, Any]:
    changed = {
        key: int(value)
        for key in ("id", "image_id", "category_id", "iscrowd", "height", "width")
        if isinstance(value := entry.get(key), float | bool)
        and abs(value) <= LARGEST_ID
        and value == int(value)
    }
    return {**entry, **changed} if changed else entry


def _with_known_ids(entry: dict[str, Any], known: Mapping[str, set[Any]]) -> dict[str, Any]:
    changed = {}
    for key, ids in known.items():
        value = entry.get(key)
        other = parse_id(value) if isinstance(value, str) else str(value)
        if isinstance(value, int | str) and value not in ids and other in ids:
            changed[key] = other
    return {**entry, **changed} if changed else entry


def _with_nested_polygon(entry: dict[str, Any]) -> dict[str, Any]:
    mask = entry.get("segmentation")
    is_flat = isinstance(mask, list) and mask and all(type(n) in (int, float) for n in mask)
    return {**entry, "segmentation": [mask]} if is_flat else entry


def _with_box_of_mask(entry: dict[str, Any]) -> dict[str, Any]:
    mask = entry.get("segmentation")
    if entry.get("bbox") or not mask:
        return entry
    if isinstance(mask, dict):
        return {**entry, "bbox": mask_tools.toBbox(_encoded(entry)).tolist()}
    try:
        points = np.concatenate([np.array(part, np.float64).reshape(-1, 2) for part in mask])
    except (TypeError, ValueError, OverflowError):
        return entry  # the checks name it
    low, high = points.min(axis=0), points.max(axis=0)
    return {**entry, "bbox": [*low.tolist(), *(high - low).tolist()]}


def _with_slashes(entry: dict[str, Any]) -> dict[str, Any]:
    file = entry.get("file_name")
    if not isinstance(file, str) or "\\" not in file:
        return entry
    return {**entry, "file_name": PureWindowsPath(file).as_posix()}


def _without_empty_mask(entry: dict[str, Any]) -> dict[str, Any]:
    mask = entry.get("segmentation")
    is_empty = type(mask) is list and len(mask) > 0 and not any(mask)
    return {**entry, "segmentation": []} if is_empty else entry


def _encoded(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run lengths of an object, compressed; invalid ones may crash pycocotools."""
    mask, name = entry["segmentation"], f"annotation {_name(entry)}"
    if not is_run_lengths(mask, str | list):
        raise UserError(
            f"{name} has segmentation {mask!r:.80}; expected polygons, or "
            '{"size": [height, width], "counts": ...}.'
        )
    counts, (height, width) = mask["counts"], mask["size"]
    if isinstance(counts, str):
        check_run_lengths([mask], lambda place: name)
        return dict(mask)
    if not all(type(run) is int and run >= 0 for run in counts) or sum(counts) != height * width:
        raise UserError(f"{name} has a mask whose runs do not add up to its size {mask['size']}.")
    return mask_tools.frPyObjects(mask, height, width)


def _has_area(entry: Mapping[str, Any]) -> bool:
    area: Any = entry.get("area")
    return is_number(area) and area >= 0


def _with_area(entry: dict[str, Any]) -> dict[str, Any]:
    return entry if _has_area(entry) else {**entry, "area": _area(entry)}


def _area(entry: Mapping[str, Any]) -> float:
    """Return the area of an object's mask, without one that of its box."""
    mask = entry.get("segmentation")
    if isinstance(mask, dict):
        return float(mask_tools.area(_encoded(entry)))
    if mask:
        return sum(polygon_area(np.array(part, np.float64).reshape(-1, 2)) for part in mask)
    return float(abs(entry["bbox"][2] * entry["bbox"][3]))


def _with_crowd(entry: dict[str, Any]) -> dict[str, Any]:
    return entry if "iscrowd" in entry else {**entry, "iscrowd": 0}
