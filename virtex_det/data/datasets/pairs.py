"""Reads pairs of image and captions: a folder of images beside texts, or a file with one JSON object per line."""

import json
import logging
from pathlib import Path
from typing import Any

from virtex_det.data.datasets.captions import keep_captioned
from virtex_det.errors import UserError

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def load_pairs(path: str | Path) -> list[dict[str, Any]]:
    """Load pairs of image and captions.

    Args:
        path: a folder, searched through all levels for images beside a ``.txt`` of their own name with one caption per
            line; or a ``.jsonl`` with an object per line: "image" (or "file_name" or "filename"), relative to the file,
            and "caption" or "captions".

    Returns:
        One dict per image that has captions, by name: file_name, image_id (its path from there) and captions.

    Raises:
        UserError: a line or text cannot be read, or there are no pairs.
    """
    path = Path(path)
    captions = _read_lines(path) if path.suffix == ".jsonl" else _read_folder(path)
    root = path.parent if path.suffix == ".jsonl" else path
    dicts = ({"file_name": str(root / name), "image_id": name, "captions": captions[name]} for name in sorted(captions))
    return keep_captioned(dicts, str(path))


def captions_in(record: dict[str, Any]) -> list[str] | None:
    """Return the captions that a JSON object has under "captions" or "caption", None if there are none of text."""
    found = record.get("captions", record.get("caption"))
    captions = [found] if isinstance(found, str) else found
    is_text = isinstance(captions, list) and all(isinstance(caption, str) for caption in captions)
    return captions if is_text else None


def _read_folder(folder: Path) -> dict[str, list[str]]:
    """Return captions by image, its path being relative to the folder."""
    files = {path for path in folder.rglob("*") if path.suffix.lower() in (*IMAGE_SUFFIXES, ".txt")}
    images = {path for path in files if path.suffix.lower() != ".txt"}
    paired = {image: text for image in images if (text := image.with_suffix(".txt")) in files}
    logger.info(
        "%s: %d pairs; left out %d images without a text and %d texts without an image",
        *(folder, len(paired), len(images) - len(paired), len(files - images - set(paired.values()))),
    )
    if not paired:
        raise UserError(
            f"{folder} has {len(images)} images and {len(files - images)} texts, but no pair of them.\n"
            "Expected images (jpg, jpeg, png, webp), each beside a text of its name: a.jpg and a.txt."
        )
    return {str(image.relative_to(folder)): _read_text(text).splitlines() for image, text in paired.items()}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(_no_text(path, error)) from error


def _read_lines(path: Path) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    image, found = _read_line(line, f"{path}, line {number}")
                    captions.setdefault(image, []).extend(found)
    except UnicodeDecodeError as error:
        raise UserError(_no_text(path, error)) from error
    return captions


def _no_text(path: Path, error: UnicodeDecodeError) -> str:
    return f"{path} is not UTF-8 text: {error}\nConvert the file, or remove it."


def _read_line(line: str, place: str) -> tuple[str, list[str]]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place} is not JSON: {error}\nMend the line, or remove it.") from error
    record = record if isinstance(record, dict) else {}
    image = next((record[key] for key in ("image", "file_name", "filename") if key in record), None)
    captions = captions_in(record)
    if not isinstance(image, str) or captions is None:
        raise UserError(
            f"{place} has no image with its caption: {line[:100]}\n"
            'Expected {"image": "a.jpg", "caption": "a dog"} or {"image": "a.jpg", "captions": ["a dog", "a pet"]}.'
        )
    return image, captions
