"""Checks of the dataset dicts that a user's function returns (see Detectron2's documentation)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from virtex_det.data.datasets.captions import caption_text
from virtex_det.data.datasets.ids import is_name
from virtex_det.errors import UserError

_FORM = "Compare it with docs/your_own_data.md and Detectron2's page on custom data sets."


def check_dataset_dicts(dicts: Any, metadata: Mapping[str, Any]) -> None:
    """Check dataset dicts for values that Detectron2's code does not check or silently misreads.

    Args:
        dicts: result of a registered function.
        metadata: metadata of the dataset.

    Raises:
        UserError: an image or an object has an invalid value.
    """
    if not isinstance(dicts, list | tuple):
        raise UserError(
            f"its function returned a {type(dicts).__name__}; expected a list of dicts.\n{_FORM}"
        )
    for place, entry in enumerate(dicts):
        if not isinstance(entry, Mapping):
            raise UserError(
                f"entry {place} of the list (counted from 0) is {entry!r:.80}; expected a dict.\n"
                f"{_FORM}"
            )
        if isinstance(entry.get("image_id"), bool):
            raise UserError(
                f"entry {place} of the list (counted from 0) has image_id {entry['image_id']}; "
                "expected a whole number or text.\n"
                f"{_FORM}"
            )
        _check_sides(entry)
        if "annotations" in entry:
            _check_objects(entry)
        if "captions" in entry:
            _check_captions(entry)
    for key in ("thing_classes", "classes"):
        _check_names(key, metadata.get(key))


def check_sizes(dicts: Sequence[Mapping[str, Any]], source: str) -> None:
    """Check that each image has a height and a width, which ground truth needs.

    Args:
        dicts: dataset dicts.
        source: name of the dataset.

    Raises:
        UserError: an image has none.
    """
    for entry in dicts:
        for side in ("height", "width"):
            if not _is_whole(entry.get(side)) or entry[side] < 1:
                raise UserError(
                    f"{source}: image {entry['image_id']} has {side} {entry.get(side)!r:.80}; "
                    "evaluation needs a whole number of pixels."
                )


def _check_sides(entry: Mapping[str, Any]) -> None:
    for side in ("height", "width"):
        value = entry.get(side)
        if value is not None and (not _is_whole(value) or value < 1):
            raise UserError(
                f"{_image(entry)} has {side} {value!r:.80}; expected a whole number of pixels.\n"
                f"{_FORM}"
            )


def _check_captions(entry: Mapping[str, Any]) -> None:
    captions = entry["captions"]
    is_empty = not captions and "annotations" not in entry  # a detector needs none
    if not isinstance(captions, list | tuple) or is_empty:
        raise UserError(
            f"{_image(entry)} has captions {captions!r:.80}; expected a list of texts. Leave out "
            "images without a caption."
        )
    for caption in captions:
        caption_text(caption, _image(entry))


def _image(entry: Mapping[str, Any]) -> str:
    return f"image {entry.get('image_id')} ({entry.get('file_name')})"


def _check_objects(entry: Mapping[str, Any]) -> None:
    objects = entry["annotations"]
    if not isinstance(objects, list | tuple) or not all(
        isinstance(found, Mapping) for found in objects
    ):
        raise UserError(
            f"image {entry.get('image_id')} has annotations {objects!r:.80}; expected a list of "
            "dicts, empty if there is no object.\n"
            f"{_FORM}"
        )
    for number, found in enumerate(objects):
        if not _is_whole(found.get("category_id")):
            raise UserError(
                f"object {number} of {_image(entry)} has category_id "
                f"{found.get('category_id')!r:.80}; expected a whole number, the index of its "
                "class in thing_classes, counted from 0.\n"
                f"{_FORM}"
            )
        if not isinstance(crowd := found.get("iscrowd", 0), int | np.integer) or crowd not in (
            0,
            1,
        ):
            raise UserError(
                f"object {number} of {_image(entry)} has iscrowd {crowd!r:.80}"
                "; expected 0, or 1 for a crowd, which is not trained on."
            )


def _check_names(key: str, names: Any) -> None:
    if names is not None and not (isinstance(names, list | tuple) and all(map(is_name, names))):
        raise UserError(
            f"{key} in its metadata is {names!r:.80}; expected a list of names, in the order of "
            "the class numbers."
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
