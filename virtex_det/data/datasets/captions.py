"""Captions in COCO's format: one dataset dict per captioned image."""

import logging
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from virtex_det.data.datasets.ids import check_id_or_name, check_unique, ids_of
from virtex_det.errors import UserError
from virtex_det.text_files import read_json

logger = logging.getLogger(__name__)

# Control characters other than tabs and line ends.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_NO_CAPTIONS = (
    "Not every split has captions (COCO's test2017 has none): name a split with captions."
)
# Invisible characters that are not part of a word: byte order marks (of concatenated files) and
# zero-width spaces.
_UNSEEN = "\ufeff\u200b"
_ENDS = re.compile(rf"^[\s{_UNSEEN}]+|[\s{_UNSEEN}]+$")
_TWO_EXPORTS = "Were two exports merged? Renumber the second one, images and annotations."


def load_coco_captions(json_file: str | Path, image_root: str | Path) -> list[dict[str, Any]]:
    """Load a captions file in COCO's format.

    Args:
        json_file: e.g. "annotations/captions_train2017.json".
        image_root: folder of the images.

    Returns:
        One dict per captioned image, by image id: file_name, image_id, captions, and height and
        width if the file has them.

    Raises:
        UserError: the file is missing, is not JSON in COCO's format, has no captions, or has a
            caption for an unknown image.
    """
    content = _read(Path(json_file))
    images = {image["id"]: image for image in content["images"]}
    captions: dict[Any, list[str]] = defaultdict(list)
    for number, annotation in enumerate(content.get("annotations", [])):
        image_id, caption = _image_and_caption(
            annotation, f"{json_file}: annotation {number} (counted from 0)"
        )
        captions[image_id].append(caption)
    _check_images_known(json_file, captions, images)
    dicts = [
        {
            "file_name": str(Path(image_root) / image["file_name"]),
            "image_id": image_id,
            **_size(image, json_file),
            "captions": captions.get(image_id, []),
        }
        for image_id, image in sorted(
            images.items(), key=lambda item: (isinstance(item[0], str), item[0])
        )
    ]
    return keep_captioned(dicts, str(json_file), _NO_CAPTIONS)


def _size(image: dict[str, Any], json_file: str | Path) -> dict[str, int]:
    sides: dict[str, int] = {key: image[key] for key in ("height", "width") if key in image}
    for key, side in sides.items():
        if type(side) is not int or not 0 < side < 2**31:
            raise UserError(
                f"{json_file}: image {image['id']} has {key} {side!r:.80}; expected a whole "
                "number of pixels.\n"
                "Correct the entry, or remove the key: then the size is read from the image."
            )
    return sides


def caption_text(value: Any, place: str) -> str:
    """Return a caption without surrounding white space; control characters become spaces.

    Args:
        value: the caption as read.
        place: where it was read, for the error message.

    Raises:
        UserError: it is not text, or has half a character (a lone surrogate).

    Example:
        >>> caption_text(" a dog\\x00on grass\\n", "captions.json")
        'a dog on grass'
    """
    if not isinstance(value, str):
        raise UserError(
            f"{place} has the caption {value!r:.80}; expected text.\n"
            "Correct the entry, or remove it."
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{place} has a caption with a lone surrogate, half a character, at {error.start}: "
            f"{value!r:.80}\n"
            "It was cut, or written in another encoding: correct the entry, or remove it."
        ) from error
    text = _CONTROL.sub(" ", value).strip()
    return _ENDS.sub("", text) if text and (text[0] in _UNSEEN or text[-1] in _UNSEEN) else text


def keep_captioned(
    dicts: Iterable[dict[str, Any]], source: str, advice: str = ""
) -> list[dict[str, Any]]:
    """Drop empty captions and images without captions; log how many.

    Args:
        dicts: dataset dicts with "captions".
        source: where they were read.
        advice: what to do if there are no captions.

    Raises:
        UserError: no image has a caption, or a caption is not text.
    """
    dicts = list(dicts)
    kept, empty = [], 0
    for entry in dicts:
        captions = [
            stripped for caption in entry["captions"] if (stripped := caption_text(caption, source))
        ]
        empty += len(entry["captions"]) - len(captions)
        if captions:
            kept.append({**entry, "captions": captions})
    if not kept:
        raise UserError(
            f"{source} has {len(dicts)} images but no captions.\n"
            + (advice or "Give images captions that are not blank, or name another file or folder.")
        )
    logger.info(
        "Loaded %d captioned images from %s; dropped %d without captions, and %d empty captions",
        len(kept),
        source,
        len(dicts) - len(kept),
        empty,
    )
    return kept


def register_coco_captions(
    name: str, json_file: str | Path, image_root: str | Path, **metadata: Any
) -> None:
    """Register a captions file in COCO's format with Detectron2; it is read on first use.

    Args:
        name: name of the dataset, e.g. "coco_2017_train_captions".
        json_file: captions file.
        image_root: folder of the images.
        metadata: other entries of its metadata.
    """
    DatasetCatalog.register(name, lambda: load_coco_captions(json_file, image_root))
    MetadataCatalog.get(name).set(
        json_file=str(json_file), image_root=str(image_root), evaluator_type="captions", **metadata
    )


def _read(json_file: Path) -> dict[str, Any]:
    """Return the content of a captions file after a check of its lists and images."""
    if not json_file.exists():
        raise UserError(
            f"there is no {json_file.name} in {json_file.parent.absolute()}\n"
            "Put it there, or set DETECTRON2_DATASETS to the folder of your data sets."
        )
    content = read_json(json_file, "captions in COCO's format")
    lists = (
        [content.get("images"), content.get("annotations", [])]
        if isinstance(content, dict)
        else [None]
    )
    if not all(isinstance(entries, list) for entries in lists):
        raise UserError(
            _another_form(json_file, 'it has no list "images", or its "annotations" is not a list')
        )
    for number, image in enumerate(content["images"]):
        if (
            not isinstance(image, dict)
            or not isinstance(image.get("file_name"), str)
            or "id" not in image
        ):
            raise UserError(
                _another_form(json_file, f"image {number} (counted from 0) is {image!r:.80}")
            )
    try:
        check_unique(ids_of(content["images"], "image"), "image", _TWO_EXPORTS)
        with_id = [
            entry
            for entry in content.get("annotations", [])
            if isinstance(entry, dict) and "id" in entry
        ]
        check_unique(ids_of(with_id, "annotation"), "annotation", _TWO_EXPORTS)
    except UserError as error:
        raise UserError(f"{json_file}: {error}") from error
    return content


def _image_and_caption(annotation: Any, place: str) -> tuple[int | str, str]:
    if not isinstance(annotation, dict) or not {"image_id", "caption"} <= annotation.keys():
        raise UserError(_another_form(place, f"it is {annotation!r:.80}"))
    named = f"{place}, id {annotation['id']}," if "id" in annotation else place
    check_id_or_name(annotation["image_id"], f"{named} has image_id")
    return annotation["image_id"], caption_text(annotation["caption"], named)


def _another_form(place: str | Path, found: str) -> str:
    return (
        f"{place} is JSON, but not in the format of COCO captions: {found}\n"
        'Expected {"images": [{"id", "file_name"}, ...], '
        '"annotations": [{"image_id", "caption"}, ...]}.'
    )


def _check_images_known(
    json_file: str | Path, captions: dict[Any, list[str]], images: dict[Any, Any]
) -> None:
    unknown = [image_id for image_id in captions if image_id not in images]
    if unknown:
        raise UserError(
            f'{json_file}: {len(unknown)} image ids of captions are not in its "images", '
            f"e.g. {unknown[0]!r}\n"
            "Captions and images must be from one file of one release."
        )
