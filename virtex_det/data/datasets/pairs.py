"""Pairs of image and captions: a folder of images and texts, or a file of JSON lines."""

import logging
from pathlib import Path
from typing import Any

from virtex_det.data.datasets.captions import caption_text, keep_captioned
from virtex_det.data.datasets.folders import find_files
from virtex_det.errors import UserError
from virtex_det.image_files import IMAGE_SUFFIXES
from virtex_det.text_files import parse_json, read_lines, read_text, split_lines

logger = logging.getLogger(__name__)


def load_pairs(path: str | Path) -> list[dict[str, Any]]:
    """Load pairs of image and captions.

    Args:
        path: a folder, searched recursively for images with a ``.txt`` of the same name (one
            caption per line); or a ``.jsonl`` with an object per line: "image" (or "file_name" or
            "filename"), relative to the file, and "caption" or "captions".

    Returns:
        One dict per captioned image, by name: file_name, image_id (its relative path) and captions.

    Raises:
        UserError: a line or text cannot be read, or there are no pairs.
    """
    path = Path(path)
    is_lines = path.suffix.lower() == ".jsonl"
    if not is_lines and not path.is_dir():
        raise UserError(
            f"{path} is neither a folder nor a .jsonl.\n"
            "Expected a folder of images and texts, or a .jsonl with a line such as "
            '{"image": "a.jpg", "caption": "a dog"} per image. Convert yours to one of these.'
        )
    captions = _read_lines(path) if is_lines else _read_folder(path)
    root = path.parent if is_lines else path
    dicts = (
        {"file_name": str(root / name), "image_id": name, "captions": captions[name]}
        for name in sorted(captions)
    )
    return keep_captioned(dicts, str(path))


def captions_in(record: dict[str, Any]) -> list[str] | None:
    """Return a JSON object's "captions" or "caption"; None if they are missing or not text."""
    found = record.get("captions", record.get("caption"))
    captions = [found] if isinstance(found, str) else found
    is_text = isinstance(captions, list) and all(isinstance(caption, str) for caption in captions)
    return captions if is_text else None


def _read_folder(folder: Path) -> dict[str, list[str]]:
    """Return the captions by image path, relative to the folder."""
    files = find_files(folder, (*IMAGE_SUFFIXES, ".txt"))
    texts: dict[Path, Path] = {}
    for path in files:
        if path.suffix.lower() == ".txt" and texts.setdefault(path.with_suffix(""), path) != path:
            raise UserError(
                f"{path} and {texts[path.with_suffix('')].name} are captions of the same image. "
                "Remove one."
            )
    images = [path for path in files if path.suffix.lower() != ".txt"]
    image_of: dict[Path, Path] = {}
    for image in images:
        text = texts.get(image.with_suffix(""))
        if text and image_of.setdefault(text, image) != image:
            raise UserError(
                f"{image_of[text]} and {image.name} both belong to {text.name}, which can be the "
                "caption of only one.\n"
                "Remove or rename one of the images."
            )
    logger.info(
        "%s: %d pairs; left out %d images without a text and %d texts without an image",
        folder,
        len(image_of),
        len(images) - len(image_of),
        len(texts) - len(image_of),
    )
    if not image_of:
        raise UserError(
            f"{folder} has {len(images)} images and {len(texts)} texts, but no pair of them.\n"
            f"Expected images ({' '.join(IMAGE_SUFFIXES)}), each with a text of the same name: "
            "a.jpg and a.txt."
        )
    return {str(image.relative_to(folder)): _captions_of(text) for text, image in image_of.items()}


def _captions_of(path: Path) -> list[str]:
    return [caption_text(line, str(path)) for line in split_lines(read_text(path))]


def _read_lines(path: Path) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    for place, line in read_lines(path, "an object with image and caption a line"):
        image, found = _read_line(line, place)
        captions.setdefault(image, []).extend(found)
    return captions


def _read_line(line: str, place: str) -> tuple[str, list[str]]:
    content = parse_json(line, place)
    record = content if isinstance(content, dict) else {}
    image = next((record[key] for key in ("image", "file_name", "filename") if key in record), None)
    captions = captions_in(record)
    if not isinstance(image, str) or not image.strip() or captions is None:
        raise UserError(
            f"{place} has no image with its caption: {line[:100]}\n"
            'Expected {"image": "a.jpg", "caption": "a dog"} '
            'or {"image": "a.jpg", "captions": ["a dog", "a pet"]}.'
        )
    return image, [caption_text(caption, place) for caption in captions]
