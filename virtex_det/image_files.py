"""The reader of image files: supported formats, and errors for all others."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from virtex_det.errors import BrokenExample, UserError
from virtex_det.escaping import visible
from virtex_det.files import open_regular
from virtex_det.image_kinds import not_read, variety_of_jpeg
from virtex_det.pixel_rules import NoRule, check_channels, check_depth, check_white, to_eight_bits

Source = str | os.PathLike[str] | bytes

# Common formats, without those that start another program, as EPS starts ghostscript. JPEG includes
# phones' MPO.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
_FORMATS_IN_WORDS = "JPEG, PNG, WebP, BMP, TIFF, GIF, PPM/PGM, JPEG 2000 and AVIF"

# Suffixes by which folders and tar files are searched for images, the most common first.
IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".gif",
    ".ppm",
    ".pgm",
    ".jp2",
    ".avif",
)

_HEAD = 4096  # bytes that show a file's kind and depth
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/")  # at least two letters: one letter is a Windows drive
# Last bytes of formats; some more are searched, because programs append bytes.
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND", "GIF": b";"}
_TAIL = 64

_ORIENTATION = 274  # tag of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BrokenImage(BrokenExample):
    """An image that cannot be used; ``reason`` says why, and the message what to do."""

    def __init__(self, message: str, reason: str = "image cannot be read") -> None:
        super().__init__(message, reason)


def load_image(source: Source, max_value: float = 0.0, name: str = "") -> Image.Image:
    """Read a whole image, upright by its EXIF orientation, with 8 bits per channel.

    8-bit images keep their mode (grey, RGB, alpha, palette, CMYK ...); Pillow's ``convert`` makes
    RGB of it, as in Detectron2. The rules for other images are in ``virtex_det.pixel_rules``.

    Args:
        source: a path, or the encoded image itself.
        max_value: the value that becomes 255 in grey images of more than 8 bits, as
            INPUT.MAX_VALUE.
        name: name of an encoded image in errors.

    Raises:
        BrokenImage: the file is missing, damaged, of another format, or no rule converts its
            pixels.
    """
    with _opened(source, name) as (image, head):
        return _upright(image, head, max_value)


def take_image(image: Image.Image, max_value: float = 0.0) -> Image.Image:
    """Return a PIL image by the rules of ``load_image``, as far as it still knows its file.

    Args:
        image: image of any mode, loaded or only opened.
        max_value: as for ``load_image``.

    Raises:
        BrokenImage: the image is damaged, or no rule converts its pixels.
    """
    if not (image.width and image.height):
        raise BrokenImage(
            f"The PIL image has no pixels: it is {image.width} x {image.height}.", "no pixels"
        )
    try:
        return _upright(image, bytes(_HEAD), max_value)
    except NoRule as error:
        raise BrokenImage(f"The PIL image cannot be used.\n{error}", error.reason) from None
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's errors for damage
        raise BrokenImage(f"The PIL image cannot be read.\nPillow says: {error}") from error


def _upright(image: Image.Image, head: bytes, max_value: float) -> Image.Image:
    check_channels(image)
    image.load()
    turn = _TURNS.get(orientation(image))
    image = to_eight_bits(image, head, max_value)
    return image if turn is None else image.transpose(turn)


def check_eight_bits(source: Source) -> None:
    """Check by its header that an image has 8 bits per channel, which all readers read alike.

    Raises:
        BrokenImage: it has another depth, or as ``load_image``, as far as the header shows.
    """
    with _opened(source, "") as (image, head):
        check_channels(image)
        check_depth(image, head)


def inspect_image(source: Source, max_value: float = 0.0, name: str = "") -> tuple[int, int]:
    """Return an image's displayed (height, width), from its header if the file's end is present.

    Args:
        source: a path, or the encoded image itself.
        max_value: as INPUT.MAX_VALUE.
        name: name of an encoded image in errors.

    Raises:
        BrokenImage: as ``load_image``, as far as the header shows.
    """
    with _opened(source, name) as (image, head):
        check_channels(image)
        check_white(image, max_value)
        if _ends_early(image, head):
            image.load()  # raises an error if pixels are missing
        if image.format == "TIFF":
            image.load()  # when Pillow turns a TIFF itself
        width, height = image.size
        return (width, height) if orientation(image) >= 5 else (height, width)


def stored_orientation(source: Source) -> int:
    """Return the EXIF orientation of an image file; 1 (upright) if it has none."""
    try:
        with _opened(source, "") as (image, _):
            return orientation(image)
    except BrokenImage:
        return 1


def orientation(image: Image.Image) -> int:
    """Return an image's EXIF orientation, 1 to 8; 1 (upright) if it has none."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF raises almost anything, but does not affect the pixels
        return 1
    return found if found in _TURNS else 1


def check_name(file_name: Any) -> None:
    """Refuse file names that are not paths, in particular URLs.

    Raises:
        BrokenImage: the name is neither text nor a path, or begins with a scheme such as
            ``http://``.
    """
    if not isinstance(file_name, str | os.PathLike):
        raise BrokenImage(
            f"The file name of an image is {file_name!r}; a path is expected.",
            "file name is not a path",
        )
    if _ADDRESS.match(os.fspath(file_name)):
        raise BrokenImage(
            f"Image is an address: {file_name}\n"
            "Images are read from disk and never fetched. Download it, and set file_name to its "
            "path.",
            "image is an address",
        )


@contextmanager
def _opened(source: Source, name: str) -> Iterator[tuple[Image.Image, bytes]]:
    """Open an image, with the first bytes of its file; errors of the block become BrokenImage."""
    name = name or ("an encoded image" if isinstance(source, bytes) else str(source))
    shown = visible(name, "")  # on one line: advice follows it
    head = b""
    try:
        with _file(source) as file:
            head = file.read(_HEAD)
            file.seek(0)
            with Image.open(file, formats=_formats()) as image:
                yield image, head
    except (BrokenImage, MemoryError):
        raise
    except NoRule as error:
        raise BrokenImage(f"Image cannot be used: {shown}\n{error}", error.reason) from None
    except UserError as error:  # of opening the file
        raise _not_opened(name, error) from error
    except UnidentifiedImageError as error:
        raise BrokenImage(
            f"Image cannot be read: {shown}\n{not_read(head, _FORMATS_IN_WORDS)}"
        ) from error
    except Image.DecompressionBombError as error:
        raise BrokenImage(
            f"Image is too large: {shown}\n"
            f"Pillow says: {error}\n"
            "Cut it into tiles, or make it smaller.",
            "image is too large",
        ) from error
    except ValueError as error:
        if "text" not in str(error).lower():
            raise _damaged(shown, error, head) from error
        raise BrokenImage(
            f"Image cannot be read: {shown}\n"
            f"Pillow says: {error}\n"
            "Its metadata has a text of that length: remove it, for example with exiftool -all= "
            "FILE.",
            "image with too long a text",
        ) from error
    # for damage Pillow raises OSError, SyntaxError, struct.error ..., by format
    except Exception as error:
        raise _damaged(shown, error, head) from error


def _ends_early(image: Image.Image, head: bytes) -> bool:
    """Return whether a JPEG, PNG, GIF, WebP or BMP lacks its end; all pixels may be there."""
    file: Any = image.fp  # type: ignore[attr-defined]  # of an opened file
    place = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _TAIL, 0))
    tail = file.read()
    file.seek(place)
    if image.format in _ENDS:
        return _ENDS[image.format] not in tail
    if image.format == "WEBP":
        return size < int.from_bytes(head[4:8], "little") + 8
    return image.format == "BMP" and size < int.from_bytes(head[2:6], "little")


def _file(source: Source) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    check_name(source)
    return open_regular(os.fspath(source))


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in IMAGE_FORMATS if name in Image.OPEN)


def _damaged(shown: str, error: Exception, head: bytes) -> BrokenImage:
    advice = "The file is damaged or truncated: download it again, or leave it out."
    if variety := variety_of_jpeg(head):
        advice = (
            f"It is {variety}, which Pillow does not read: save it as a JPEG of 8 bits that is "
            "not lossless, or PNG."
        )
    return BrokenImage(f"Image cannot be read: {shown}\nPillow says: {error}\n{advice}")


def _not_opened(name: str, error: UserError) -> BrokenImage:
    shown = visible(name, "")
    if not isinstance(error.__cause__, FileNotFoundError):
        return BrokenImage(
            f"Image cannot be opened: {shown}\n{error}", "image file cannot be opened"
        )
    advice = (
        "The annotation file lists it. Check that the download is complete, and that the folder "
        "of images is the right one: the one that the data set is registered with, below "
        "DETECTRON2_DATASETS for those of Detectron2."
    )
    if _ADDRESS.search(name):
        advice = (
            "Its name contains an address, and images are never fetched: download it, and set "
            "file_name to its path."
        )
    elif "\\" in name:
        advice = (
            "The name has backslashes, which separate folders only on Windows. "
            'Write "/" in the annotation file.'
        )
    return BrokenImage(f"Image not found: {shown}\n{advice}", "image file is missing")
