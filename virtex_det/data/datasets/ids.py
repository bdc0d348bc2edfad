"""What may be an id, and that no two things have the same one: most libraries keep the last of two without a word."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from virtex_det.errors import UserError

# COCO's code keeps ids as floats, in which larger ones are no longer all different.
LARGEST_ID = 2**53
# No control characters and no halves of characters, on which libraries and pages fail.
_NAME = re.compile(r"(?=.*\S)[^\x00-\x1f\x7f\ud800-\udfff]*")
_LISTS = {"images": "image", "annotations": "annotation", "categories": "category"}


def parse_id(text: str) -> int | None:
    """Return the number that plain ASCII digits are, None for any other text.

    Python's own ``int`` takes "1_2", " 12", "+12", "0012" and full-width digits for 12.

    Example:
        >>> parse_id("12"), parse_id("1_2"), parse_id("0012")
        (12, None, None)
    """
    is_plain = text.isascii() and text.isdecimal() and len(text) < 17 and (text[0] != "0" or text == "0")
    return int(text) if is_plain and int(text) <= LARGEST_ID else None


def is_name(value: Any) -> bool:
    """Return whether a value is text that can name something: one line, not blank, without halves of characters."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def check_id(value: Any, what: str) -> None:
    """Refuse an id that is no whole number, negative, or too large to be told from its neighbours."""
    if type(value) is not int or not 0 <= value <= LARGEST_ID:
        raise UserError(f"{what} {value!r:.80}; expected a whole number from 0 to 2**53.")


def check_id_or_name(value: Any, what: str) -> None:
    """Refuse an id that is neither a whole number, as ``check_id`` has it, nor a text that files and logs can hold."""
    if not isinstance(value, str):
        return check_id(value, what)
    if not is_name(value):
        raise UserError(f"{what} {ascii(value):.80}; expected a whole number or a name.")


def check_unique(ids: Sequence[int | str], what: str, advice: str = "Give each its own id.") -> None:
    """Refuse ids that occur twice; a number and the same number as text are one id, as in files they are one text.

    Args:
        ids: to compare.
        what: has them, e.g. "image".
        advice: how to mend it.
    """
    if len(set(ids)) == len(ids) and len(set(map(type, ids))) < 2:
        return
    repeated = [value for value, count in Counter(map(str, ids)).items() if count > 1]
    if repeated:
        raise UserError(
            f"{what} id {repeated[0]} occurs twice ({len(repeated)} ids that do). "
            f"Of two things under one id one would be lost, or have the other's annotations.\n{advice}"
        )


def check_coco_ids(content: Any, source: str) -> None:
    """Check the ids of a file in COCO's form: images, annotations and categories, each list that it has.

    pycocotools and Detectron2 go by these ids, and of two entries under one keep the last.

    Args:
        content: what the JSON file says.
        source: its path, for messages.

    Raises:
        UserError: names the entry without a valid id, or the id that occurs twice.
    """
    if not isinstance(content, dict):
        raise UserError(f"{source} cannot be used: it is not of COCO's form, an object with {', '.join(_LISTS)}.")
    for name, what in _LISTS.items():
        entries = content.get(name, [])
        if not isinstance(entries, list):
            raise UserError(f'{source} cannot be used: it is not of COCO\'s form, its "{name}" is no list.')
        try:
            # COCO's own minival files of 2014 repeat some ids of annotations; pycocotools keeps all boxes of these.
            is_known = name == "annotations" and ("minival" in source or "valminusminival" in source)
            ids = ids_of(entries, what)
            check_unique([] if is_known else ids, what, _APART[name])
            if name != "annotations":
                _check_one_kind(ids, what)
        except UserError as error:
            raise UserError(f"{source}: {error}") from error


def _check_one_kind(ids: Sequence[int | str], what: str) -> None:
    """Refuse ids of which some are numbers and some are text: no order is defined between the two."""
    for place, value in enumerate(ids):
        if type(value) is not type(ids[0]):
            raise UserError(
                f"{what} 0 of the list (counted from 0) has id {ids[0]!r:.80}, and {what} {place} {value!r:.80}; "
                "expected numbers alone, or text alone.\nWrite all of one kind, in the annotations too."
            )


def ids_of(entries: Sequence[Any], what: str) -> list[int | str]:
    """Return the ids of a list's entries.

    Args:
        entries: objects with an "id".
        what: each is, e.g. "image".

    Raises:
        UserError: names the entry that is not an object, or whose id is missing or neither a whole number nor text.
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
    "images": "Two exports put together? Number the images of the second anew, in its annotations too.",
    "annotations": "Two exports put together? Number the annotations of the second anew.",
    "categories": "Each category needs an id of its own, which its annotations name.",
}
