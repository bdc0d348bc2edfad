"""Images of datasets: pixels from a dataset dict or a path, and their layout for the model."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import detection_utils

from virtex_det.image_files import BrokenImage, load_image, stored_orientation


class Span(NamedTuple):
    """Where in a tar file an encoded image lies."""

    tar_file: str
    offset: int  # in bytes
    size: int

    def read(self) -> bytes:
        """Return the encoded image."""
        with Path(self.tar_file).open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def read_picture(path: str | os.PathLike[str], cfg: CfgNode) -> np.ndarray:
    """Read an image file as training and evaluation read it, for Detectron2's DefaultPredictor.

    Args:
        path: of the image.
        cfg: of the run; INPUT.MAX_VALUE is read from it.

    Returns:
        (H, W, 3) uint8 in BGR order, which DefaultPredictor takes whatever INPUT.FORMAT is.

    Raises:
        BrokenImage: the image cannot be read; names the file.

    Example:
        >>> predictor(read_picture("photo.jpg", cfg))["instances"]  # doctest: +SKIP
    """
    return np.ascontiguousarray(_pixels(os.fspath(path), "BGR", cfg.INPUT.MAX_VALUE))


def read_image(example: dict[str, Any], image_format: str, max_value: float = 0.0) -> np.ndarray:
    """Read the image of a dataset dict and check it against the annotated size.

    BGR comes back as RGB, what Pillow decodes to, since resizing a reversed view is slower; ``image_tensor`` reverses.

    Args:
        example: a dataset dict with "file_name", and for an image in a tar file its "encoded_image", bytes or a Span;
            receives "height" and "width" where it has none.
        image_format: as Detectron2's INPUT.FORMAT.
        max_value: as INPUT.MAX_VALUE.

    Returns:
        The pixels, (H, W, C).

    Raises:
        BrokenImage: the file is missing, damaged, of no kind that is read, or of another size than its annotation says.
    """
    encoded = example.get("encoded_image")
    source = encoded.read() if isinstance(encoded, Span) else encoded
    name = str(example.get("file_name")) if source is not None else ""
    source = example.get("file_name") if source is None else source
    image = _pixels(source, "RGB" if image_format == "BGR" else image_format, max_value, name)
    check_size(example, source, image.shape[:2])
    return image


def check_size(example: dict[str, Any], source: Any, size: tuple[int, int]) -> None:
    """Compare an image's size with what its dataset dict says, and put it there where that says nothing.

    Args:
        example: the dataset dict.
        source: path of the image, or the encoded image itself.
        size: (height, width).

    Raises:
        BrokenImage: they differ; says both, and what EXIF may have to do with it.
    """
    annotated = (example.setdefault("height", size[0]), example.setdefault("width", size[1]))
    if annotated == size:
        return
    advice = "The annotations are of another version of this image; use both of one release."
    if annotated == size[::-1]:
        advice = _swapped(source)
    raise BrokenImage(
        f"Image {example['file_name']} has the size {size[::-1]}, and its annotation says {annotated[::-1]} "
        f"(width, height).\n{advice}",
        "not of the annotated size",
    )


def image_tensor(image: np.ndarray, image_format: str) -> torch.Tensor:
    """Lay an (H, W, C) image from ``read_image`` out as a contiguous (C, H, W) tensor in its format's channel order.

    Torch mirrors planar memory ten times faster than NumPy copies a mirrored view, so a flip is left for it to do.
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
        return "Width and height seem to have changed places in the annotation file: exchange them there."
    return (
        f"The file's EXIF orientation ({found}) turns it by 90 degrees when it is read, as in Detectron2 and viewers.\n"
        "Where boxes were drawn on the turned image, exchange width and height in the annotation file. Where they were "
        "drawn on the stored pixels, remove the orientation from the file: exiftool -Orientation= FILE."
    )
