"""Checks of ids: valid and unique. Of two equal ids most libraries silently keep the last."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from virtex_det.data.datasets.typed_annotations import TypedContent
from virtex_det.errors import UserError

# COCO's code stores ids as floats, which cannot distinguish larger ones.
LARGEST_ID = 2**53
# No control characters and no lone surrogates, on which libraries and pages fail.
_NAME = re.compile(r"(?=.*\S)[^\x00-\x1f\x7f\ud800-\udfff]*")
_LISTS = {"images": "image", "annotations": "annotation", "categories": "category"}


def parse_id(text: str) -> int | None:
    """Return the number in plain ASCII digits, None for other text.

    Python's own ``int`` also accepts "1_2", " 12", "+12", "0012" and full-width digits.

    Example:
        >>> parse_id("12"), parse_id("1_2"), parse_id("0012")
        (12, None, None)
    """
    is_plain = (
        text.isascii() and text.isdecimal() and len(text) < 17 and (text[0] != "0" or text == "0")
    )
    return int(text) if is_plain and int(text) <= LARGEST_ID else None


def is_name(value: Any) -> bool:
    """Return whether a value is a valid name: one line of text, not blank, no lone surrogates."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def check_id(value: Any, what: str) -> None:
    """Refuse an id that is not a whole number from 0 to LARGEST_ID."""
    if type(value) is not int or not 0 <= value <= LARGEST_ID:
        raise UserError(f"{what} {value!r:.80}; expected a whole number from 0 to 2**53.")


def check_id_or_name(value: Any, what: str) -> None:
    """Refuse an id that is neither a whole number, as in ``check_id``, nor a name."""
    if not isinstance(value, str):
        return check_id(value, what)
    if not is_name(value):
        raise UserError(f"{what} {ascii(value):.80}; expected a whole number or a name.")


def check_unique(
    ids: Sequence[int | str], what: str, advice: str = "Give each its own id."
) -> None:
    """Refuse ids that occur twice; a number and its text are the same id, as they are in files.

    Args:
        ids: ids to compare.
        what: their owner, e.g. "image".
        advice: what to do.
    """
    if len(set(ids)) == len(ids) and len(set(map(type, ids))) < 2:
        return
    repeated = [value for value, count in Counter(map(str, ids)).items() if count > 1]
    if repeated:
        more = f" ({len(repeated)} such ids)" if len(repeated) > 1 else ""
        raise UserError(
            f"{what} id {repeated[0]} occurs twice{more}. "
            f"One of the two would be lost, or get the other's annotations.\n{advice}"
        )


def check_coco_ids(content: Any, source: str) -> None:
    """Check the ids of images, annotations and categories of a file in COCO's format.

    Of two entries with one id, pycocotools and Detectron2 keep the last.

    Args:
        content: content of the JSON file.
        source: its path, for messages.

    Raises:
        UserError: an id is missing, invalid or occurs twice.
    """
    if not isinstance(content, dict):
        raise UserError(
            f"{source} cannot be used: it is not in COCO's format, an object with "
            f"{', '.join(_LISTS)}."
        )
    for name, what in _LISTS.items():
        if name == "annotations" and isinstance(content, TypedContent):
            continue
        entries = content.get(name, [])
        if not isinstance(entries, list):
            raise UserError(
                f'{source} cannot be used: it is not in COCO\'s format, its "{name}" is not a list.'
            )
        if name == "annotations":
            refuse_panoptic(entries, source)
        try:
            # COCO's own minival files of 2014 repeat some annotation ids; pycocotools keeps all
            # their boxes.
            is_known = name == "annotations" and (
                "minival" in source or "valminusminival" in source
            )
            ids = ids_of(entries, what)
            check_unique([] if is_known else ids, what, _APART[name])
            if name != "annotations":
                _check_one_kind(ids, what)
        except UserError as error:
            raise UserError(f"{source}: {error}") from error


def refuse_panoptic(annotations: Sequence[Any], source: str) -> None:
    """Refuse panoptic files, whose annotations are images with segments and have no ids."""
    first = annotations[0] if annotations else {}
    if isinstance(first, Mapping) and "segments_info" in first:
        raise UserError(
            f"{source} is of panoptic segmentation: its annotations have segments_info.\n"
            "Name the file of the objects, such as instances_val2017.json."
        )


def _check_one_kind(ids: Sequence[int | str], what: str) -> None:
    """Refuse a mix of numbers and text as ids: the two have no order."""
    for place, value in enumerate(ids):
        if type(value) is not type(ids[0]):
            raise UserError(
                f"{what} 0 of the list (counted from 0) has id {ids[0]!r:.80}, but {what} {place} "
                f"has {value!r:.80}; expected only numbers or only text.\n"
                "Write all ids in one way, also in the annotations."
            )


def ids_of(entries: Sequence[Any], what: str) -> list[int | str]:
    """Return the ids of a list's entries.

    Args:
        entries: objects with an "id".
        what: name of an entry, e.g. "image".

    Raises:
        UserError: an entry is not an object, or its id is missing or invalid.
    """
    if set(map(type, entries)) == {dict}:
        ids = [entry.get("id") for entry in entries]
        if set(map(type, ids)) == {int} and 0 <= min(ids) and max(ids) <= LARGEST_ID:
            return ids
    ids = []
    for place, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or "id" not in entry:
            raise UserError(f"{what} {place} of the list (counted from 0) has no id: {entry!r:.80}")
        if type(entry["id"]) is not int or not 0 <= entry["id"] <= LARGEST_ID:
            check_id_or_name(entry["id"], f"{what} {place} of the list (counted from 0) has id")
        ids.append(entry["id"])
    return ids


_APART = {
    "images": "Were two exports merged? Renumber the images of the second one, also in its "
    "annotations.",
    "annotations": "Were two exports merged? Renumber the annotations of the second one.",
    "categories": "Each category needs its own id, to which its annotations refer.",
}
