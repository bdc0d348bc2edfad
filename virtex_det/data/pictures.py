"""Pictures as files, folders, frames, PIL images or arrays: found, checked, read as RGB pixels."""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from virtex_det.config.data_names import is_by_name
from virtex_det.data.datasets import load_dataset
from virtex_det.data.datasets.folders import find_files, find_matching
from virtex_det.data.images import read_image
from virtex_det.data.videos import Frame, is_video
from virtex_det.errors import UserError
from virtex_det.escaping import printable, visible
from virtex_det.image_files import (
    IMAGE_SUFFIXES,
    BrokenImage,
    check_name,
    inspect_image,
    take_image,
)
from virtex_det.utils import map_ahead

Picture = str | os.PathLike[str] | Image.Image | np.ndarray | Frame
Pictures = Picture | Sequence[Picture]  # a path may be that of a folder
T = TypeVar("T")

logger = logging.getLogger(__name__)

_EXPECTED = (
    "expected the path of an image file or of a folder, a PIL image, a uint8 array (height, "
    "width, 3) in RGB order, or a list of these"
)
_AT_ONCE = 4  # files decoded in parallel: enough to keep a model busy
_AHEAD = 8  # pictures read before the first of them is used
_SHOWN = 5


def read_rgb(picture: Picture, max_value: float = 0.0) -> np.ndarray:
    """Return the pixels of one picture; a file is read as in training and evaluation.

    Args:
        picture: the path of an image file, a frame, a PIL image, or RGB pixels (H, W, 3) of uint8.
        max_value: as INPUT.MAX_VALUE.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        BrokenImage: the file is missing, damaged, or its pixels cannot be converted.
        UserError: an array of another type or shape, or not a picture.

    Example:
        >>> read_rgb(Image.new("L", (4, 2))).shape
        (2, 4, 3)
    """
    if isinstance(picture, Frame):
        if picture.fault:
            raise BrokenImage(f"{printable(picture.video):.500}\n{picture.fault}.", picture.fault)
        return picture.pixels
    if isinstance(picture, np.ndarray):
        check_array(picture)
        return np.ascontiguousarray(picture)
    if isinstance(picture, Image.Image):
        upright = take_image(picture, max_value)
        return np.array(upright.convert("RGB"))
    if not isinstance(picture, str | os.PathLike):
        raise UserError(f"The picture is a {_type_name(picture)}; {_EXPECTED}.")
    _check_file(picture)
    return np.ascontiguousarray(read_image({"file_name": os.fspath(picture)}, "RGB", max_value))


def check_array(pixels: np.ndarray) -> None:
    """Refuse an array that is not uint8 (height, width, 3); BGR order cannot be detected.

    Raises:
        UserError: the array has another type or shape; the message says how to convert it.
    """
    is_image = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size > 0
    if is_image and pixels.dtype == np.uint8:
        return
    raise UserError(
        f"The picture is an array of {pixels.dtype} with the shape {pixels.shape}; expected uint8 "
        f"with the shape (height, width, 3), in RGB order.{_advice(pixels)}"
    )


def list_pictures(pictures: Pictures) -> list[Picture]:
    """Return the pictures of a list or folder, those of a folder in the order of their names.

    Raises:
        UserError: a folder is missing or has no image, an entry is not a picture, or an array has
            another type or shape.
    """
    if not isinstance(pictures, list | tuple) or isinstance(pictures, Frame):
        return _pictures_of(pictures)
    found: list[Picture] = []
    for place, picture in enumerate(pictures):
        try:
            found += _pictures_of(picture)
        except UserError as error:
            raise UserError(f"Entry {place} of the list of pictures: {error}") from error
    return found


def is_one_picture(pictures: Pictures) -> bool:
    """Return whether the argument is a single picture, not a list or a folder."""
    is_list = isinstance(pictures, list | tuple) and not isinstance(pictures, Frame)
    return not is_list and not _is_folder(pictures)


def usable_pictures(
    pictures: Sequence[Picture], max_value: float, *, skip_broken: bool
) -> list[Picture]:
    """Check the headers of all files, to find broken ones before any work is done.

    Args:
        pictures: pictures from ``list_pictures``.
        max_value: as INPUT.MAX_VALUE.
        skip_broken: leave broken files out with a warning instead of raising an error.

    Raises:
        UserError: some files are broken.
    """
    reasons = {
        place: why for place, picture in enumerate(pictures) if (why := _fault(picture, max_value))
    }
    if reasons and not skip_broken:
        more = [f"  and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else []
        lines = [f"  {why}" for why in list(reasons.values())[:_SHOWN]]
        heading = f"{len(reasons)} of {len(pictures)} pictures cannot be used; nothing was done:"
        advice = "Remove them, or set skip_broken=True to leave them out with a warning."
        raise UserError("\n".join([heading, *lines, *more, advice]))
    for why in reasons.values():
        warn_of_broken(why)
    return [picture for place, picture in enumerate(pictures) if place not in reasons]


def warn_of_broken(why: str) -> None:
    """Log that a picture is left out, and why."""
    logger.warning("left out: %s", why)


def read_ahead(
    pictures: Iterable[Picture], read: Callable[[Picture], T]
) -> Iterator[tuple[Picture, T | BrokenImage]]:
    """Yield each picture with the result of ``read`` or its error; threads read ahead."""

    def read_or_error(picture: Picture) -> T | BrokenImage:
        try:
            return read(picture)
        except BrokenImage as error:
            return error

    return map_ahead(read_or_error, pictures, _AT_ONCE, _AHEAD)


def without_broken(
    found: Iterable[tuple[Picture, T | BrokenImage]], *, skip_broken: bool
) -> Iterator[tuple[Picture, T]]:
    """Yield the pictures that could be read, with their results.

    Args:
        found: pictures with their results or errors, from ``read_ahead``.
        skip_broken: warn of a broken picture instead of raising its error.
    """
    for picture, result in found:
        if not isinstance(result, BrokenImage):
            yield picture, result
        elif skip_broken:
            warn_of_broken(in_one_line(picture, result))
        else:
            raise result


def picture_name(picture: Picture) -> str:
    """Return the path of a picture, of a frame that of its video, "" for pixels without a file."""
    if isinstance(picture, np.ndarray):
        return ""
    if isinstance(picture, Frame):
        return picture.video
    path = getattr(picture, "filename", "") if isinstance(picture, Image.Image) else picture
    return os.fsdecode(path) if isinstance(path, str | os.PathLike) else ""


def in_one_line(picture: Picture, error: BrokenImage) -> str:
    """Return a broken picture's name and its fault."""
    name = printable(picture_name(picture)) or "a picture in memory"
    if isinstance(error.__cause__, UnidentifiedImageError):
        return f"{name}: not an image"
    lines = str(error).splitlines()[1:]
    sentences = [line if line.endswith((".", ":", ",")) else f"{line}." for line in lines]
    why = " ".join(sentences) or error.reason
    return f"{name}: {visible(why, '')}"


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Return the images that files, folders (recursive), patterns and data sets name, each once.

    Data sets are those named by where they lie, such as yolo:data.yaml:val. A dash
    stands for the names that standard input has, one on a line.

    Raises:
        UserError: an argument matches nothing, or a folder has no image.
    """
    named = [name for argument in arguments for name in _given(argument)]
    return list(dict.fromkeys(path for name in named for path in _find(name)))


def load_image_files(name: str) -> list[dict[str, Any]]:
    """Load a data set for its pictures: dataset dicts with a "file_name".

    Raises:
        UserError: as ``load_dataset``, or the pictures lie in tar files.
    """
    dicts = load_dataset(name, boxes_alone=True)
    if "encoded_image" in dicts[0]:
        raise UserError(f"{name}: its images lie in tar files. Name data whose images are files.")
    return dicts


def _given(argument: str) -> list[str]:
    """Return an argument, or the names that standard input has in its place."""
    if argument != "-":
        return [argument]
    names = [line.rstrip("\r\n") for line in sys.stdin]
    found = [name for name in names if name]
    if not found:
        raise UserError(
            "The argument - reads names of images from standard input, one per line, but there was "
            "none."
        )
    return found


def _find(argument: str) -> list[Path]:
    if not argument:
        raise UserError(
            "A name of an image is empty. For all images in the current folder write a dot."
        )
    path = Path(argument)
    if is_by_name(argument) and not os.path.lexists(argument):
        return [Path(entry["file_name"]) for entry in load_image_files(argument)]
    if os.path.isdir(argument):  # noqa: PTH112
        return _images_below(path)
    if os.path.exists(argument):  # noqa: PTH110
        return [path]
    if os.path.lexists(argument):  # a pattern would name it for ever
        raise UserError(f"{printable(argument):.500} is a broken link: its target does not exist.")
    found = [file for name in find_matching(argument) for file in _find(name)]
    if not found:
        raise UserError(f"There is no image, folder or pattern {argument!r:.500}.")
    return found


def _images_below(folder: Path) -> list[Path]:
    found = sorted(find_files(folder, IMAGE_SUFFIXES))
    if not found:
        raise UserError(
            f"The folder {folder} has no image. Searched, with all its subfolders, for: "
            f"{' '.join(IMAGE_SUFFIXES)}"
        )
    return found


def _pictures_of(picture: Any) -> list[Picture]:
    if _is_folder(picture):
        return list(_images_below(Path(picture)))
    if isinstance(picture, np.ndarray):
        check_array(picture)
    elif not isinstance(picture, Image.Image | str | os.PathLike | Frame):
        raise UserError(f"It is a {_type_name(picture)}; {_EXPECTED}.")
    return [picture]


def _is_folder(picture: Any) -> bool:
    return isinstance(picture, str | os.PathLike) and os.path.isdir(picture)  # noqa: PTH112


def _fault(picture: Picture, max_value: float) -> str:
    """Return the fault that a picture's header shows, "" for none."""
    if isinstance(picture, np.ndarray | Image.Image | Frame) or is_video(picture):
        return ""
    try:
        _check_file(picture)
        inspect_image(picture, max_value)
    except BrokenImage as error:
        return in_one_line(picture, error)
    return ""


def _check_file(path: str | os.PathLike[str]) -> None:
    if not os.fspath(path):
        raise BrokenImage("The name of the picture is empty.", "its name is empty")
    check_name(path)
    if not os.path.exists(path):  # noqa: PTH110  (Path's raises for a name that is too long)
        raise BrokenImage(
            f"There is no picture {printable(path):.500}.\nCheck the path.",
            "image file is missing",
        )


def _advice(pixels: np.ndarray) -> str:
    """Return how to convert an array to a picture."""
    shape, lines = pixels.shape, []
    if pixels.ndim == 4:
        lines.append("Pass several pictures as a list of arrays: list(pictures).")
    elif pixels.ndim == 2:
        lines.append("Pass a grey picture as a PIL image: Image.fromarray(picture).")
    elif pixels.ndim == 3 and shape[2] == 4:
        lines.append("Remove the alpha channel: picture[:, :, :3].")
    elif pixels.ndim == 3 and shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4):
        lines.append("Channels come last: picture.transpose(1, 2, 0).")
    if pixels.dtype != np.uint8 and pixels.size and pixels.dtype.kind in "fiu":
        low, high = pixels.min(), pixels.max()
        scale = "255 * picture" if high <= 1 else "picture"
        white = "1" if high <= 1 else "255"
        lines.append(
            f"Its values go from {low:g} to {high:g}; if white is {white}, convert it by "
            f"({scale}).round().astype(numpy.uint8)."
        )
    lines.append("OpenCV's BGR becomes RGB with picture[:, :, ::-1].")
    return "\n" + "\n".join(lines)


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
