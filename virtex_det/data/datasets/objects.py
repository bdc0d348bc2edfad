"""Checks of a dataset's objects: invalid boxes and masks are errors or counted warnings."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as mask_tools
from detectron2.structures import BoxMode

from virtex_det.data.datasets.ids import is_name
from virtex_det.data.datasets.mask_places import check_mask_places
from virtex_det.data.datasets.typed_annotations import TypedContent
from virtex_det.errors import UserError
from virtex_det.run_lengths import check_run_lengths, is_run_lengths

logger = logging.getLogger(__name__)

# Fields that Detectron2's readers of COCO and LVIS need.
_IMAGE_FIELDS = {"coco": ("file_name", "height", "width"), "lvis": ("height", "width")}
_OBJECT_FIELDS = {
    "coco": ("image_id", "category_id", "bbox"),
    "lvis": ("image_id", "category_id", "bbox", "segmentation"),
}
# allowed distance outside the image, by amodal boxes or rounding
_PIXELS_BEYOND, _SHARE_BEYOND = 2.0, 0.02
_MANY, _NEARLY_ALL = 0.02, 0.95
_MANY_REPEATS, _REPEATS = 1 / 3, 20  # share and number of repeated annotations that are refused
_REVERSED = 0.01  # share of boxes with negative size above which they are an error
# Objects whose polygons are checked number by number, at even distances; more take seconds, and the
# mapper skips and reports a broken one.
_OBJECTS = 20_000
_LARGEST = 2**53
_EMPTY = 1e-5  # pixels; Detectron2 does not train on narrower boxes

_told: set[tuple[str, str]] = set()


class Boxes(NamedTuple):
    """All boxes of a dataset.

    Attributes:
        values: the boxes as in the dataset, one per object.
        sizes: height and width of their images, NaN if unknown. # shape: (N, 2)
        are_corners: True for x1, y1, x2, y2, False for x, y, width, height. # shape: (N,)
        name: returns the name of an object in messages, by its index.
        source: name of the dataset in messages.
    """

    values: Sequence[Any] | np.ndarray
    sizes: np.ndarray
    are_corners: np.ndarray
    name: Callable[[int], str]
    source: str


def check_objects(content: Mapping[str, Any], style: str, source: str) -> None:
    """Check the objects of an annotation file; Detectron2's reader would not name the entry.

    Args:
        content: ``images``, ``annotations`` and ``categories``, with checked ids.
        style: "coco" or "lvis".
        source: path of the file.

    Raises:
        UserError: an image or annotation has a missing or invalid field.
    """
    try:
        _check_content(content, style, source)
    except UserError as error:
        raise UserError(f"{source} cannot be used: {error}") from error


def _check_content(content: Mapping[str, Any], style: str, source: str) -> None:
    images, objects = content.get("images", ()), content.get("annotations", ())
    columns = content.columns if isinstance(content, TypedContent) else None
    if columns is None:
        _refuse_captions(objects, source)
    _check_fields(images, _IMAGE_FIELDS[style], "image")
    if columns is None or (style == "lvis" and not columns.have_masks):
        _check_fields(objects, _OBJECT_FIELDS[style], "annotation")
    sizes = _image_sizes(images)
    if columns is None:
        _check_ids(objects)
    _check_image_ids(objects, sizes)
    categories = content.get("categories", ())
    if columns is None and categories:  # LVIS's may be known by the release
        _check_crowds_and_categories(objects, {category["id"] for category in categories})
    _check_category_names(categories)
    if columns is None:
        for entry in _without_plain_polygon(objects):
            _check_form_of_mask(entry)
    places = dict(zip(sizes, range(len(sizes)), strict=True))
    # the last is for unknown images
    of_images = np.array([*sizes.values(), (np.nan, np.nan)], np.float64)
    image_ids = columns.image_ids.tolist() if columns else [entry["image_id"] for entry in objects]
    of_objects = np.fromiter(map(places.get, image_ids, repeat(-1)), np.int64, len(objects))
    boxes = Boxes(
        columns.boxes if columns else [entry["bbox"] for entry in objects],
        of_images[of_objects],
        np.zeros(len(objects), bool),
        lambda place: f"annotation {objects[place]['id']} (image {objects[place]['image_id']})",
        source,
    )
    check_boxes(boxes)
    _check_repeats(boxes, of_objects, objects)


def _refuse_captions(objects: Sequence[Mapping[str, Any]], source: str) -> None:
    if objects and "caption" in objects[0] and "bbox" not in objects[0]:
        raise UserError(
            "its annotations are captions, without boxes.\n"
            f"For pretraining name the data captions:{source}:IMAGE_FOLDER; for detection name the "
            "file of the objects, such as instances_val2017.json."
        )


def _check_repeats(
    boxes: Boxes, of_objects: np.ndarray, objects: Sequence[Mapping[str, Any]]
) -> None:
    """Refuse annotations of which many repeat another one; count a few."""
    values = _as_numbers(boxes)
    # Equal rows have equal sums; those of others are nearly never equal, and are compared below.
    sums = of_objects * math.sqrt(2)
    for column, factor in enumerate((math.pi, math.e, math.sqrt(3), math.sqrt(5))):
        sums = sums + factor * values[:, column]
    order = np.argsort(sums, kind="stable")
    is_equal = sums[order][1:] == sums[order][:-1]
    if not is_equal.any():
        return
    places = np.union1d(order[1:][is_equal], order[:-1][is_equal]).tolist()
    seen: set[tuple[Any, ...]] = set()
    repeated = np.zeros(len(values), bool)
    for place in places:
        row = (of_objects[place], objects[place]["category_id"], *values[place].tolist())
        repeated[place] = row in seen
        seen.add(row)
    what = "annotations repeat another one (same image, category and box)"
    if repeated.mean() >= _MANY_REPEATS and repeated.sum() >= _REPEATS:
        place = int(np.flatnonzero(repeated)[0])
        raise UserError(
            f"{int(repeated.sum())} of {len(values)} {what}, the first: {boxes.name(place)}.\n"
            "Such objects would count several times. Were the same annotations merged twice?"
        )
    _tell(boxes, repeated, f"{what}; each of them counts", values)


def check_dicts(dicts: Sequence[Mapping[str, Any]], source: str) -> None:
    """Check the boxes of dataset dicts without an annotation file: of VOC, or of a user's function.

    Raises:
        UserError: a box or its ``bbox_mode`` is invalid.
    """
    try:
        _check_dicts(dicts, source)
    except UserError as error:
        raise UserError(f"{source} cannot be used: {error}") from error


def _check_dicts(dicts: Sequence[Mapping[str, Any]], source: str) -> None:
    found = [
        (entry, number) for entry in dicts for number in range(len(entry.get("annotations") or ()))
    ]
    objects = [entry["annotations"][number] for entry, number in found]

    def name(place: int) -> str:
        return name_object(*found[place])

    for place, entry in enumerate(objects):
        if "bbox" not in entry or entry.get("bbox_mode") not in (
            BoxMode.XYWH_ABS,
            BoxMode.XYXY_ABS,
            BoxMode.XYWHA_ABS,
        ):
            raise UserError(
                f"{name(place)} has bbox {entry.get('bbox')!r:.80} and bbox_mode "
                f"{entry.get('bbox_mode')!r}; expected four numbers, and BoxMode.XYWH_ABS or "
                "XYXY_ABS."
            )
        if isinstance(entry["bbox"], np.ndarray) and entry["bbox_mode"] != BoxMode.XYXY_ABS:
            raise UserError(
                f"{name(place)} has a NumPy array as bbox; expected a list of numbers: "
                "bbox.tolist()."
            )
    upright = [
        place for place, entry in enumerate(objects) if entry["bbox_mode"] != BoxMode.XYWHA_ABS
    ]
    sizes = [
        [found[place][0].get(side) or np.nan for side in ("height", "width")] for place in upright
    ]
    check_boxes(
        Boxes(
            [objects[place]["bbox"] for place in upright],
            np.array(sizes, np.float64).reshape(-1, 2),
            np.array([objects[place]["bbox_mode"] == BoxMode.XYXY_ABS for place in upright], bool),
            lambda place: name(upright[place]),
            source,
        )
    )


def name_object(entry: Mapping[str, Any], number: int) -> str:
    """Return the name in messages of an object of a dataset dict, by its place in the image."""
    return f"object {number} of image {entry['image_id']} ({entry.get('file_name')})"


def check_boxes(boxes: Boxes) -> None:
    """Refuse boxes that are not numbers, of the wrong kind, or reversed; warn of empty ones.

    Raises:
        UserError: a box is invalid.
    """
    values = _as_numbers(boxes)
    if not len(values):
        return
    extent = np.where(boxes.are_corners[:, None], values[:, 2:] - values[:, :2], values[:, 2:])
    _check_fractions(boxes, values)
    _check_kind(boxes, values, extent)
    _check_reversed(boxes, values, extent)
    _check_inside(boxes, values, extent)
    empty = np.all(extent >= 0, axis=1) & np.any(extent <= _EMPTY, axis=1)
    _tell(boxes, empty, "boxes have no width or no height; training leaves them out", values)
    _check_small(boxes, values, extent)


def check_made_boxes(content: Mapping[str, Any], places: Sequence[str], source: str) -> None:
    """Check the boxes of objects that the reader of another format has put into COCO's.

    Args:
        content: in COCO's format; images have a height and a width.
        places: of the objects in their files, for messages.
        source: name of the dataset in messages.

    Raises:
        UserError: as ``check_boxes``.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    objects = content["annotations"]
    check_boxes(
        Boxes(
            [entry["bbox"] for entry in objects],
            np.array([sizes[entry["image_id"]] for entry in objects], np.float64).reshape(-1, 2),
            np.zeros(len(objects), bool),
            lambda place: places[place],
            source,
        )
    )


def check_kind(boxes: Boxes) -> None:
    """Refuse boxes in fractions of their image, and corners instead of width and height.

    Raises:
        UserError: boxes are of the wrong kind.
    """
    values = _as_numbers(boxes)
    if len(values):
        _check_fractions(boxes, values)
        _check_kind(boxes, values, values[:, 2:])


def _without_plain_polygon(objects: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the objects whose mask needs a closer check: few in most files."""
    return [
        entry
        for entry in objects
        if type(mask := entry.get("segmentation")) is not list
        or not mask
        or type(mask[0]) is not list
        or type(mask[-1]) is not list
        or len(mask[0]) < 6
        or len(mask[0]) % 2
    ]


def _as_numbers(boxes: Boxes) -> np.ndarray:
    """Return boxes as float64. # shape: (N, 4)"""
    if isinstance(boxes.values, np.ndarray):
        return boxes.values.astype(np.float64)
    if (values := _as_plain_numbers(boxes.values)) is not None:
        return values
    for place, box in enumerate(boxes.values):
        found = box.tolist() if isinstance(box, np.ndarray) else box
        is_box = isinstance(found, list | tuple) and len(found) == 4
        if not is_box or not all(is_number(value) for value in found):
            raise UserError(
                f"{boxes.name(place)} has the box {box!r:.80}; expected four finite numbers, "
                f"{_form(boxes, place)} in pixels."
            )
    return np.array([list(map(float, box)) for box in boxes.values], np.float64).reshape(-1, 4)


def _as_plain_numbers(rows: Sequence[Any] | np.ndarray) -> np.ndarray | None:
    """Return rows of four finite Python numbers as float64 (N, 4), None for other values."""
    try:
        if set(map(len, rows)) == {4} and {int, float}.issuperset(
            map(type, chain.from_iterable(rows))
        ):
            values = np.fromiter(chain.from_iterable(rows), np.float64, 4 * len(rows))
            return values.reshape(-1, 4) if np.all(np.abs(values) < _LARGEST) else None
    except (TypeError, OverflowError):
        pass
    return None


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number that floats hold exactly enough."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return is_number and bool(-_LARGEST < value < _LARGEST)  # False for NaN, too


def _check_fractions(boxes: Boxes, values: np.ndarray) -> None:
    fractions = (
        np.all(values >= 0, axis=1) & np.all(values <= 1, axis=1) & np.any(values > 0, axis=1)
    )
    if fractions.mean() > 0.5 and not (boxes.sizes <= 2).all():
        _refuse(
            boxes,
            values,
            fractions,
            "lie between 0 and 1: they look like fractions of the image",
            "Multiply them by the width and the height of their image.",
        )


def _check_kind(boxes: Boxes, values: np.ndarray, extent: np.ndarray) -> None:
    """Refuse corners instead of width and height, and the reverse."""
    limits = boxes.sizes[:, ::-1]
    slack = np.maximum(_PIXELS_BEYOND, _SHARE_BEYOND * limits)
    plain = ~boxes.are_corners
    beyond = plain & np.any(values[:, :2] + values[:, 2:] > limits + slack, axis=1)
    as_corners = np.all(values[:, 2:] > values[:, :2], axis=1) & np.all(
        values[:, 2:] <= limits + slack, axis=1
    )
    if beyond.sum() > _MANY * plain.sum() and as_corners[plain].mean() >= _NEARLY_ALL:
        _refuse(
            boxes,
            values,
            beyond,
            "reach beyond their image, but all would fit as corners: they look like [x1, y1, "
            "x2, y2]",
            "Convert them: width = x2 - x1, height = y2 - y1; or let your function set bbox_mode "
            "BoxMode.XYXY_ABS.",
        )
    reversed_corners = boxes.are_corners & np.any(extent < 0, axis=1)
    if reversed_corners.sum() > 0.1 * max(boxes.are_corners.sum(), 1):
        _refuse(
            boxes,
            values,
            reversed_corners,
            "have x2 below x1 or y2 below y1: reversed corners, or x, y, width, height",
            "Set the corners in order, or let your function set bbox_mode BoxMode.XYWH_ABS.",
        )


def _check_reversed(boxes: Boxes, values: np.ndarray, extent: np.ndarray) -> None:
    negative = np.any(extent < 0, axis=1)
    if negative.mean() > _REVERSED:
        _refuse(
            boxes,
            values,
            negative,
            "have a negative width or height",
            "Start each box at its upper left corner. Training would skip such boxes, but metrics "
            "would use them.",
        )
    _tell(
        boxes, negative, "boxes have a negative width or height; training leaves them out", values
    )


def _check_inside(boxes: Boxes, values: np.ndarray, extent: np.ndarray) -> None:
    """Refuse boxes if most have no pixel of their image; count them otherwise."""
    begin, limits = values[:, :2], boxes.sizes[:, ::-1]
    outside = np.any((begin >= limits) | (begin + extent <= 0), axis=1) & np.all(extent > 0, axis=1)
    if outside.mean() > 0.5:
        _refuse(
            boxes,
            values,
            outside,
            "are outside their image",
            "Check the height and width of the images, and the unit of the boxes.",
        )
    _tell(boxes, outside, "boxes are outside their image; training leaves them out", values)


def _check_small(boxes: Boxes, values: np.ndarray, extent: np.ndarray) -> None:
    """Refuse boxes if most are less than a pixel wide or high; count them otherwise."""
    small = np.all(extent > _EMPTY, axis=1) & np.any(extent < 1, axis=1)
    if small.mean() > 0.5 and not (boxes.sizes <= 2).all():
        _refuse(
            boxes,
            values,
            small,
            "are less than a pixel wide or high",
            "Check the unit of width and height, which are pixels of the image.",
        )
    _tell(boxes, small, "boxes are less than a pixel wide or high", values)


def _refuse(boxes: Boxes, values: np.ndarray, wrong: np.ndarray, what: str, advice: str) -> None:
    place = int(np.flatnonzero(wrong)[0])
    height, width = boxes.sizes[place]
    where = "" if np.isnan((height, width)).any() else f" in an image of {width:g} x {height:g}"
    raise UserError(
        f"{int(wrong.sum())} of {len(values)} boxes {what}.\n"
        f"The first: {boxes.name(place)} has {values[place].tolist()}{where}; expected "
        f"{_form(boxes, place)} in pixels.\n"
        f"{advice}"
    )


def _form(boxes: Boxes, place: int) -> str:
    return "[x1, y1, x2, y2]" if boxes.are_corners[place] else "[x, y, width, height]"


def _tell(boxes: Boxes, wrong: np.ndarray, what: str, values: np.ndarray) -> None:
    """Warn once per dataset of the number of invalid boxes, with the first as an example."""
    if not wrong.any() or (boxes.source, what) in _told:
        return
    _told.add((boxes.source, what))
    place = int(np.flatnonzero(wrong)[0])
    logger.warning(
        "%s: %d of %d %s; the first: %s has %s",
        boxes.source,
        wrong.sum(),
        len(values),
        what,
        boxes.name(place),
        values[place].tolist(),
    )


def _check_fields(entries: Sequence[Mapping[str, Any]], fields: Sequence[str], what: str) -> None:
    for field in fields:
        for entry in entries:
            if field not in entry:
                raise UserError(
                    f"{what} {entry['id']} has no {field}; expected {', '.join(fields)}.\n"
                    f"Add it, or remove the {what} from the file."
                )


def _image_sizes(images: Sequence[Mapping[str, Any]]) -> dict[Any, tuple[float, float]]:
    sides = [(image["height"], image["width"]) for image in images]
    if not all(map(_is_side, chain.from_iterable(sides))):
        wrong = [k for k, pair in enumerate(sides) if not all(map(_is_side, pair))]
        for place in wrong[:1]:
            raise UserError(
                f"image {images[place]['id']} has height {sides[place][0]!r} and width "
                f"{sides[place][1]!r}; expected whole numbers of pixels."
            )
    for image in images:
        if not isinstance(image.get("file_name", ""), str):
            raise UserError(
                f"image {image['id']} has file_name {image['file_name']!r:.80}; expected text."
            )
    return {image["id"]: pair for image, pair in zip(images, sides, strict=True)}


def _is_side(value: Any) -> bool:
    return is_number(value) and 0 < value < 2**31 and value == int(value)


def _check_ids(objects: Sequence[Mapping[str, Any]]) -> None:
    for field in ("image_id", "category_id"):
        if not {int, str}.issuperset(map(type, map(itemgetter(field), objects))):
            wrong = next(entry for entry in objects if type(entry[field]) not in (int, str))
            raise UserError(
                f"annotation {wrong['id']} has {field} {wrong[field]!r:.80}; expected the id of "
                f"one of the file's {'images' if field == 'image_id' else 'categories'}."
            )


def _check_image_ids(objects: Sequence[Mapping[str, Any]], sizes: Mapping[Any, Any]) -> None:
    """Refuse a file in which no annotation has a known image; Detectron2 would only warn."""
    if objects and not any(entry["image_id"] in sizes for entry in objects):
        first = objects[0]
        raise UserError(
            f"no annotation belongs to an image. The first one, {first['id']}, has image_id "
            f"{first['image_id']!r}, but the images have ids such as {next(iter(sizes), None)!r}.\n"
            "Give annotations the ids of their images, numbers as numbers and text as text."
        )


def _check_crowds_and_categories(
    objects: Sequence[Mapping[str, Any]], ids: Collection[Any]
) -> None:
    for entry in objects:
        if entry.get("iscrowd", 0) not in (0, 1):
            raise UserError(
                f"annotation {entry['id']} has iscrowd {entry['iscrowd']!r:.80}; expected 0 or 1."
            )
        if entry["category_id"] not in ids:
            raise UserError(
                f"annotation {entry['id']} has category_id {entry['category_id']!r}, which the "
                f"{len(ids)} categories of the file do not have.\n"
                "Add the category, or correct the annotation."
            )


def _check_category_names(categories: Sequence[Mapping[str, Any]]) -> None:
    for category in categories:
        if not is_name(category.get("name")):
            raise UserError(
                f"category {category['id']} has name {category.get('name')!r:.80}; expected one "
                "line of text."
            )


def _check_form_of_mask(entry: Mapping[str, Any]) -> None:
    mask = entry.get("segmentation")
    if not mask and not isinstance(mask, str):
        return
    if isinstance(mask, Mapping):
        if "counts" in mask and "size" in mask:
            return
    elif isinstance(mask, list) and all(isinstance(part, list) for part in mask):
        return
    flat = (
        " (a flat list: add another pair of brackets)"
        if isinstance(mask, list) and _is_flat(mask)
        else ""
    )
    raise UserError(
        f"annotation {entry['id']} has segmentation {mask!r:.80}{flat}; expected a list of "
        "polygons "
        '[[x1, y1, x2, y2, ...], ...], or {"size": [height, width], "counts": ...}.'
    )


def _is_flat(mask: list[Any]) -> bool:
    return all(isinstance(value, int | float) for value in mask)


def check_masks(dicts: Sequence[Mapping[str, Any]], mask_format: str) -> None:
    """Check the training masks: each object needs one in a format that INPUT.MASK_FORMAT allows.

    Raises:
        UserError: a mask is missing or invalid.
    """
    number = sum(len(entry["annotations"]) for entry in dicts)
    sample = dicts[:: max(1, -(-number // _OBJECTS))]
    if _are_plain_polygons(dicts, sample):
        _check_polygons_at_boxes(sample)
        return
    for entry in dicts:
        for number, annotation in enumerate(entry["annotations"]):
            if not annotation.get("iscrowd", 0) and (
                fault := _fault_of_mask(annotation, mask_format)
            ):
                raise UserError(f"{name_object(entry, number)} {fault}")
    _check_runs(dicts)
    _check_polygons_at_boxes(sample)


def _check_polygons_at_boxes(dicts: Sequence[Mapping[str, Any]]) -> None:
    found = [
        (entry, number)
        for entry in dicts
        for number, annotation in enumerate(entry["annotations"])
        if type(annotation.get("segmentation")) is list
        and not annotation.get("iscrowd", 0)
        and annotation.get("bbox_mode") in (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    ]
    objects = [entry["annotations"][number] for entry, number in found]
    boxes = np.array([entry["bbox"] for entry in objects], np.float64).reshape(-1, 4)
    sizes = np.array([entry["bbox_mode"] == BoxMode.XYWH_ABS for entry in objects], bool)
    boxes[sizes, 2:] += boxes[sizes, :2]

    def name(place: int) -> str:
        return name_object(*found[place])

    masks = [entry["segmentation"] for entry in objects]
    check_mask_places(masks, boxes, name, "training data")


def _check_runs(dicts: Sequence[Mapping[str, Any]]) -> None:
    """Refuse truncated run-length masks, and those of another size; pycocotools accepts them."""
    found = [
        (entry, number)
        for entry in dicts
        for number, annotation in enumerate(entry["annotations"])
        if isinstance(annotation.get("segmentation"), Mapping) and not annotation.get("iscrowd", 0)
    ]
    masks = [entry["annotations"][number]["segmentation"] for entry, number in found]

    def name(place: int) -> str:
        return name_object(*found[place])

    for place, ((entry, _), mask) in enumerate(zip(found, masks, strict=True)):
        if not is_run_lengths(mask, str | bytes | list):
            raise UserError(
                f"{name(place)} has the mask {mask!r:.80}; "
                'expected {"size": [h, w], "counts": ...}.'
            )
        of_mask = mask["size"]
        size = [entry.get("height", of_mask[0]), entry.get("width", of_mask[1])]
        if of_mask != size:
            raise UserError(
                f"{name(place)} has a mask of size {of_mask}; expected {size}, [height, width] of "
                "its image."
            )
        runs = mask["counts"]
        if isinstance(runs, list) and not _add_up(runs, mask["size"]):
            raise UserError(
                f"{name(place)} has a mask whose runs do not add up to its size {mask['size']}."
            )
    compressed = [place for place, mask in enumerate(masks) if not isinstance(mask["counts"], list)]
    check_run_lengths([masks[place] for place in compressed], lambda place: name(compressed[place]))
    empty = [place for place, mask in enumerate(masks) if _is_empty(mask)]
    if not empty:
        return
    if len(empty) == len(masks):
        raise UserError(
            f"all {len(masks)} run-length masks are empty, the first of {name(empty[0])}: training "
            "would leave them out.\nCheck how they were encoded."
        )
    logger.warning(
        "training data: %d of %d run-length masks are empty, and are left out; the first: %s",
        len(empty),
        len(masks),
        name(empty[0]),
    )


def _is_empty(mask: Mapping[str, Any]) -> bool:
    """Return whether no pixel belongs to a run-length mask."""
    runs = mask["counts"]
    return not (sum(runs[1::2]) if isinstance(runs, list) else mask_tools.area(mask))


def _add_up(runs: Sequence[Any], size: Sequence[int]) -> bool:
    return all(type(run) is int and run >= 0 for run in runs) and sum(runs) == size[0] * size[1]


def _are_plain_polygons(
    dicts: Sequence[Mapping[str, Any]], sample: Sequence[Mapping[str, Any]]
) -> bool:
    """Return whether all masks are polygons of 3 points or more, and those of a sample finite."""
    masks = _masks(dicts)
    if not all(type(mask) is list and mask for mask in masks):
        return False
    polygons = list(chain.from_iterable(masks))
    try:
        lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
        checked = list(chain.from_iterable(_masks(sample)))
        sums = np.fromiter(map(sum, checked), np.float64, len(checked))
        if bool in set(map(type, chain.from_iterable(checked))):  # a sum counts True as 1
            return False
    except (TypeError, ValueError):
        return False
    return bool(((lengths >= 6) & (lengths % 2 == 0)).all() and np.isfinite(sums).all())


def _masks(dicts: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [
        annotation.get("segmentation")
        for entry in dicts
        for annotation in entry["annotations"]
        if not annotation.get("iscrowd", 0)
    ]


def _fault_of_mask(annotation: Mapping[str, Any], mask_format: str) -> str:
    mask = annotation.get("segmentation")
    if mask is None:
        return (
            "has no segmentation.\n"
            "For boxes only, set MODEL.MASK_ON False; with masks every object needs one."
        )
    if not isinstance(mask, list | Mapping):
        return (
            f"has a segmentation of type {type(mask).__name__}; expected a list of polygons, or "
            "run lengths (a dict)."
        )
    if not isinstance(mask, list):
        is_runs = isinstance(mask, Mapping) and mask_format == "polygon"
        return "has a run-length encoded mask.\nSet INPUT.MASK_FORMAT bitmask." if is_runs else ""
    if mask and _is_flat(mask):
        return (
            f"has the flat list {mask!r:.80}; expected a list of polygons: add another pair of "
            "brackets."
        )
    for polygon in mask:
        if not isinstance(polygon, Sequence | np.ndarray):
            return f"has the polygon {polygon!r:.80}; expected a list of x and y."
        if len(polygon) < 6 or len(polygon) % 2 or not _are_finite(polygon):
            return f"has the polygon {polygon!r:.80}; expected finite x and y of 3 points or more."
    if mask:
        return ""
    return (
        "has an empty list of polygons.\n"
        "Remove the object, or train boxes only: MODEL.MASK_ON False."
    )


def _are_finite(polygon: Sequence[float] | np.ndarray) -> bool:
    # A sum is finite only if all numbers are: the fastest check of millions of numbers.
    try:
        if bool in set(map(type, polygon)):
            return False
        return math.isfinite(np.sum(polygon) if isinstance(polygon, np.ndarray) else sum(polygon))
    except TypeError:
        return False


def why_no_object(dicts: Sequence[Mapping[str, Any]]) -> str:
    """Return why these dataset dicts have no object to train on; "" if there is one."""
    reasons: Counter[str] = Counter()
    for entry in dicts:
        for annotation in entry.get("annotations") or ():
            reason = why_not_trained_on(entry, annotation)
            if not reason:
                return ""
            reasons[reason] += 1
    if not reasons:
        return "no image has an annotation"
    counted = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    if len(reasons) == 1:
        return f"all {counted}"
    return f"none of the {reasons.total()} annotations can be trained on: {counted}"


def why_not_trained_on(entry: Mapping[str, Any], annotation: Mapping[str, Any]) -> str:
    """Return why a detector does not train on an annotation; "" if it does."""
    if annotation.get("iscrowd", 0):
        return "annotations are crowds (iscrowd 1), which detectors do not train on"
    mode, box = annotation.get("bbox_mode"), annotation.get("bbox")
    if mode not in (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) or box is None or len(box) != 4:
        return ""  # rotated, or refused by the checks of boxes
    left, top, right, bottom = map(float, box)
    if mode == BoxMode.XYWH_ABS:
        right, bottom = left + right, top + bottom
    if not (right - left > _EMPTY and bottom - top > _EMPTY):
        return "annotations have a box without width or height"
    width, height = entry.get("width", math.inf), entry.get("height", math.inf)
    is_inside = left < width and top < height and right > 0 and bottom > 0
    return "" if is_inside else "annotations have a box outside their image"
