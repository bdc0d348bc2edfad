"""Reading an image of a dataset, and laying it out for the model."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.data import detection_utils
from PIL import Image, ImageOps

from virtex_det.errors import UserError


class BrokenImage(UserError):
    """An image that cannot be used; ``reason`` says why in a few words, its message what to do."""

    def __init__(self, message: str, reason: str = "image cannot be read") -> None:
        super().__init__(message)
        self.reason = reason


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


def read_image(example: dict[str, Any], image_format: str) -> np.ndarray:
    """Read the image of a dataset dict and check it against the annotated size.

    BGR comes back as RGB, what Pillow decodes to, since resizing a reversed view is slower; ``image_tensor`` reverses.

    Args:
        example: a dataset dict with "file_name", and for an image in a tar file its "encoded_image", bytes or a Span;
            receives "height" and "width" where it has none.
        image_format: as Detectron2's INPUT.FORMAT.

    Returns:
        The pixels, (H, W, C).

    Raises:
        BrokenImage: the file is missing, damaged, or of another size than its annotation says.
    """
    try:
        image = _decode(example, "RGB" if image_format == "BGR" else image_format)
        detection_utils.check_image_size(example, image)
    except detection_utils.SizeMismatchError as error:
        raise BrokenImage(
            f"{error}\nThe annotations are of another version of this image; use both of one release.",
            "not of the annotated size",
        ) from error
    except FileNotFoundError as error:
        raise BrokenImage(
            f"Image not found: {example['file_name']}\n"
            "The annotation file lists it. Check that the download is complete and DETECTRON2_DATASETS is right.",
            "image file is missing",
        ) from error
    except MemoryError:
        raise
    except (
        Exception
    ) as error:  # what Pillow raises for damage depends on the format: OSError, SyntaxError, struct.error
        raise BrokenImage(
            f"Image cannot be read: {example['file_name']}\n"
            f"Pillow says: {error}\n"
            "The file is damaged or cut short: fetch it again, or remove it from the annotation file."
        ) from error
    return image


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


def _decode(example: dict[str, Any], image_format: str) -> np.ndarray:
    encoded = example.get("encoded_image")
    if encoded is None:
        return detection_utils.read_image(example["file_name"], image_format)
    image = Image.open(io.BytesIO(encoded.read() if isinstance(encoded, Span) else encoded))
    return detection_utils.convert_PIL_to_numpy(ImageOps.exif_transpose(image), image_format)
