"""Images of datasets: pixels of a dataset dict or a path, and tensors for the model."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import detection_utils

from virtex_det.image_files import BrokenImage, load_image, stored_orientation


class Span(NamedTuple):
    """The place of an encoded image in a tar file."""

    tar_file: str
    offset: int  # in bytes
    size: int

    def read(self) -> bytes:
        """Return the encoded image."""
        with Path(self.tar_file).open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def read_picture(path: str | os.PathLike[str], cfg: CfgNode) -> np.ndarray:
    """Read an image file as training and evaluation do, for Detectron2's DefaultPredictor.

    Args:
        path: path of the image.
        cfg: config of the run; only INPUT.MAX_VALUE is used.

    Returns:
        (H, W, 3) uint8 in BGR order, which DefaultPredictor takes for every INPUT.FORMAT.

    Raises:
        BrokenImage: the image cannot be read.

    Example:
        >>> predictor(read_picture("photo.jpg", cfg))["instances"]  # doctest: +SKIP
    """
    return np.ascontiguousarray(_pixels(os.fspath(path), "BGR", cfg.INPUT.MAX_VALUE))


def read_image(example: dict[str, Any], image_format: str, max_value: float = 0.0) -> np.ndarray:
    """Read the image of a dataset dict and check it against the annotated size.

    For BGR the result is RGB, as Pillow decodes it, because resizing a reversed view is slower;
    ``image_tensor`` reverses it.

    Args:
        example: a dataset dict with "file_name", and for an image in a tar file "encoded_image",
            bytes or a Span. "height" and "width" are added if missing.
        image_format: as Detectron2's INPUT.FORMAT.
        max_value: as INPUT.MAX_VALUE.

    Returns:
        The pixels, (H, W, C).

    Raises:
        BrokenImage: the file is missing, damaged, of an unknown kind, or not of its annotated size.
    """
    encoded = example.get("encoded_image")
    source = encoded.read() if isinstance(encoded, Span) else encoded
    name = str(example.get("file_name")) if source is not None else ""
    source = example.get("file_name") if source is None else source
    image = _pixels(source, "RGB" if image_format == "BGR" else image_format, max_value, name)
    check_size(example, source, image.shape[:2])
    return image


def check_size(example: dict[str, Any], source: Any, size: tuple[int, int]) -> None:
    """Check an image's size against its dataset dict, and add it to the dict if missing.

    Args:
        example: the dataset dict.
        source: path of the image, or the encoded image itself.
        size: (height, width).

    Raises:
        BrokenImage: the sizes differ, possibly by the EXIF orientation.
    """
    annotated = (example.setdefault("height", size[0]), example.setdefault("width", size[1]))
    if annotated == size:
        return
    advice = (
        "The annotations are for another version of this image; use images and annotations of one "
        "release."
    )
    if annotated == size[::-1]:
        advice = _swapped(source)
    raise BrokenImage(
        f"Image {example['file_name']} has the size {size[::-1]}, but its annotation says "
        f"{annotated[::-1]} (width, height).\n"
        f"{advice}",
        "not of the annotated size",
    )


def image_tensor(image: np.ndarray, image_format: str) -> torch.Tensor:
    """Convert an (H, W, C) image of ``read_image`` to a contiguous (C, H, W) tensor in its format.

    A mirrored view is flipped by torch, ten times faster than a copy by NumPy.
    """
    planes = image.transpose(2, 0, 1)
    if image_format == "BGR":
        planes = planes[::-1]
    mirrored = tuple(axis for axis, stride in enumerate(planes.strides) if stride < 0)
    unmirrored = np.flip(planes, mirrored)
    if unmirrored.flags.c_contiguous and unmirrored.flags.writeable:
        return torch.from_numpy(unmirrored).flip(mirrored)
    return torch.from_numpy(np.array(planes, order="C"))


def _pixels(source: Any, image_format: str, max_value: float, name: str = "") -> np.ndarray:
    image = load_image(source, max_value, name)
    if image.mode == "LAB" and image_format != "LAB":
        image = image.convert("RGB")  # Pillow converts it to nothing else
    return detection_utils.convert_PIL_to_numpy(image, image_format)


def _swapped(source: Any) -> str:
    found = stored_orientation(source)
    if found < 5:
        return "Width and height seem to be swapped in the annotation file: swap them there."
    return (
        f"The file's EXIF orientation ({found}) rotates it by 90 degrees when it is read, as in "
        "Detectron2 and viewers.\n"
        "If the boxes were drawn on the rotated image, swap width and height in the annotation "
        "file. If they were drawn on the stored pixels, remove the orientation from the file: "
        "exiftool -Orientation= FILE."
    )
