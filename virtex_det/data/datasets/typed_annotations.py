"""Decodes annotation files in COCO's format and checks their types at the same time.

msgspec decodes with types as fast as without. Most files are valid; any other file is left to the
slower readers, which check each entry in Python and name the invalid one.
"""

import json
from collections.abc import Mapping
from functools import cache
from itertools import chain
from operator import itemgetter
from types import GenericAlias
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from typing_extensions import NotRequired, TypedDict

from virtex_det.text_files import count_colons, count_names
from virtex_det.utils import without_garbage_collection

_Number = int | float
_NEEDED = ("id", "image_id", "category_id", "bbox")
_LARGEST = 2**53  # of ids and coordinates: beyond it floats are not exact
_PEEK = 10**6  # bytes in which the first annotation has to end


class _RunLengths(TypedDict):
    size: list[int]
    counts: str | list[int]


_TYPES: Mapping[str, Any] = {
    "id": int,
    "image_id": int,
    "category_id": int,
    "bbox": Annotated[list[_Number], msgspec.Meta(min_length=4, max_length=4)],
    "iscrowd": int,
    "segmentation": list[list[_Number]] | _RunLengths | None,
    "keypoints": list[_Number],
}
_OTHER_TYPE = int | float | str | bool | None  # nothing that could have names of its own


class Columns(NamedTuple):
    """What later checks need of all annotations of a file.

    Attributes:
        image_ids: # shape: (N,)
        boxes: x, y, width, height. # shape: (N, 4)
        have_masks: whether each annotation has a segmentation.
    """

    image_ids: np.ndarray
    boxes: np.ndarray
    have_masks: bool


class TypedContent(dict):
    """The content of a file with valid annotations; images and categories are not checked yet.

    Each annotation has COCO's fields and types. Ids are whole numbers from 0 to 2**53 and no id
    occurs twice, ``category_id`` is one of the categories, ``iscrowd`` is 0 or 1, and masks are
    polygons or run lengths. The image of ``image_id`` may be missing.
    """

    columns: Columns


def decode_annotations(encoded: bytes) -> TypedContent | None:
    """Decode an annotation file in COCO's format.

    Args:
        encoded: the JSON.

    Returns:
        The same lists, dicts and numbers as other parsers return. None if an annotation is
        invalid, if the file has other parts than COCO's, or if an object has a name twice.
    """
    names = _names_of_first(encoded)
    if not names.issuperset(_NEEDED):
        return None
    try:
        with without_garbage_collection():
            content = TypedContent(_decoder(names).decode(encoded))
            columns = _columns_of(content)
            if columns is None or _count_names(content) != count_colons(encoded):
                return None
    except (msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError):
        return None
    content.columns = columns
    return content


def _names_of_first(encoded: bytes) -> frozenset[str]:
    """Return the names of the first annotation's entries; none where they are not found."""
    begin = encoded.find(b"{", encoded.find(b'"annotations"'))
    text = encoded[begin : begin + _PEEK].decode("utf-8", errors="ignore") if begin > 0 else ""
    try:
        first, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return frozenset()
    return frozenset(first)


@cache
def _decoder(names: frozenset[str]) -> Any:
    """Return a decoder for annotations with these names; it leaves out other names."""
    fields: dict[str, Any] = {name: _TYPES[name] for name in _NEEDED}
    for name in names.difference(_NEEDED):
        fields[name] = NotRequired[_TYPES.get(name, _OTHER_TYPE)]
    make_type: Any = TypedDict
    annotation: Any = make_type("annotation", fields)
    lists = {
        "annotations": GenericAlias(list, (annotation,)),
        "images": list[dict[str, Any]],
        "categories": list[dict[str, Any]],
    }
    others = dict.fromkeys(("info", "licenses", "type"), NotRequired[Any])
    return msgspec.json.Decoder(make_type("content", lists | others))


def _columns_of(content: Mapping[str, Any]) -> Columns | None:
    """Return the columns of the annotations; None if an id, category, crowd or box is invalid."""
    annotations = content["annotations"]
    rows = chain.from_iterable(map(itemgetter("id", "image_id", "category_id"), annotations))
    ids = np.fromiter(rows, np.int64, 3 * len(annotations)).reshape(-1, 3)
    boxes = np.fromiter(
        chain.from_iterable(map(itemgetter("bbox"), annotations)), np.float64, 4 * len(annotations)
    ).reshape(-1, 4)
    known = {category.get("id") for category in content["categories"]}
    is_in_order = (
        len(annotations) > 0
        and 0 <= ids.min()
        and ids.max() <= _LARGEST
        and len(np.unique(ids[:, 0])) == len(ids)
        and known.issuperset(np.unique(ids[:, 2]).tolist())
        and {0, 1}.issuperset([entry.get("iscrowd", 0) for entry in annotations])
        and np.abs(boxes).max() < _LARGEST
    )
    have_masks = all("segmentation" in entry for entry in annotations)
    return Columns(ids[:, 1], boxes, have_masks) if is_in_order else None


def _count_names(content: Mapping[str, Any]) -> int:
    """Return how many names all objects of a file have."""
    annotations = content["annotations"]
    masks = [entry.get("segmentation") for entry in annotations]
    run_lengths = sum(type(mask) is dict for mask in masks)
    others = {name: value for name, value in content.items() if name != "annotations"}
    return 1 + sum(map(len, annotations)) + 2 * run_lengths + count_names(others)
