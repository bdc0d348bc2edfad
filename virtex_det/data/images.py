"""Reading an image of a dataset, and laying it out for the model."""

import numpy as np
import torch
from detectron2.data import detection_utils
from PIL import Image

from virtex_det.errors import UserError


def read_image(example: dict, image_format: str) -> np.ndarray:
    """Read the image of a dataset dict and check it against the annotated size.

    BGR comes back as RGB, what Pillow decodes to, since resizing a reversed view is slower; ``image_tensor`` reverses.

    Args:
        example: a dataset dict with "file_name"; receives "height" and "width" where it has none.
        image_format: as Detectron2's INPUT.FORMAT.

    Returns:
        The pixels, (H, W, C).

    Raises:
        UserError: the file is missing, damaged, or of another size than its annotation says.
    """
    try:
        image = detection_utils.read_image(example["file_name"], "RGB" if image_format == "BGR" else image_format)
        detection_utils.check_image_size(example, image)
    except detection_utils.SizeMismatchError as error:
        raise UserError(
            f"{error}\nThe annotations are of another version of this image; use images and annotations of one release."
        ) from error
    except FileNotFoundError as error:
        raise UserError(
            f"Image not found: {example['file_name']}\n"
            "The annotation file lists it. Check that the download is complete and DETECTRON2_DATASETS is right."
        ) from error
    # Pillow reports damage as OSError, SyntaxError (PNG) or ValueError, depending on the format.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
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
