"""Conversion of pixels of any depth to 8 bits: one rule per kind of pixel, for all images of a run.

No rule scales an image by its own extremes: two images of one scene must stay comparable.
"""

import logging
import re
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

logger = logging.getLogger(__name__)

_WHITE = 65535  # of 16 bits
# A 16-bit image with a smaller maximum is refused: it would look black, and mostly has 12 bits or
# fewer.
_DARK = _WHITE // 16
# An image with a smaller maximum is read with a warning, once per process.
_DIM = _WHITE // 4

_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")

# Tags of TIFF.
_SUBFILE_TYPE, _BITS, _PHOTOMETRIC, _CHANNELS, _SAMPLE_FORMAT = 254, 258, 262, 277, 339
_PLANAR, _COLOUR_MAP = 284, 320
_APART = 2
_SMALLER, _MASK = 1, 4  # subfile types of pages that repeat or describe another page
_WHITE_IS_ZERO, _SIGNED = 0, 2


class NoRule(Exception):
    """No rule converts the pixels of an intact image to 8 bits; the message says what to do."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def check_channels(image: Image.Image) -> None:
    """Refuse a TIFF if Pillow would read only some of its channels or pages, or misread pixels.

    Args:
        image: opened, not loaded.

    Raises:
        NoRule: it does not have 1, 3 or 4 channels (or grey with alpha), or has several pages,
            signed bytes, planar channels of more than 8 bits, or a palette of too few bits.
    """
    if image.format != "TIFF":
        return
    channels = _tag(image, _CHANNELS, 1)
    if channels > 4 or (channels == 2 and image.mode not in _WITH_ALPHA):
        raise NoRule(
            f"It has {channels} channels; supported are 1 (grey), 3 (RGB) and 4 (RGB and alpha).\n"
            "Save the channels to train on as an RGB or a grey image.",
            "image of several channels",
        )
    if _SIGNED in _tag(image, _SAMPLE_FORMAT, ()) and image.mode != "I":
        raise NoRule(
            "Its pixels are signed bytes.\nSave it with unsigned ones.", "image of signed bytes"
        )
    if _tag(image, _PLANAR, 1) == _APART and channels > 1 and _bits(image) > 8:
        raise NoRule(
            f"Its channels of {_bits(image)} bits are stored one after the other (planar), which "
            "Pillow misreads.\n"
            "Save it with interleaved channels, or with 8 bits.",
            "planar image of more than 8 bits",
        )
    if image.mode == "P" and 0 < max(_tag(image, _COLOUR_MAP, (0,))) < 256:
        raise NoRule(
            "Its palette has colours of 8 bits where TIFF has 16, so that it would be black.\n"
            "Save it as RGB.",
            "palette that would be black",
        )
    _check_pages(image)


def check_depth(image: Image.Image, head: bytes) -> None:
    """Refuse images that ``to_eight_bits`` would change or check.

    Raises:
        NoRule: the image has more than 8 bits per channel.
    """
    if _is_deep(image) or _is_reduced(image, head):
        raise NoRule(
            "It has more than 8 bits per channel, which DATALOADER.MAPPER DetectionMapper reads "
            "and DatasetMapper does not.\n"
            "Save it with 8 bits.",
            "image of more than 8 bits",
        )


def check_white(image: Image.Image, max_value: float) -> None:
    """Refuse an image whose white is unknown.

    Args:
        image: opened image.
        max_value: as INPUT.MAX_VALUE.

    Raises:
        NoRule: it has 32-bit or signed integers or floats, and ``max_value`` is 0.
    """
    # Some versions of Pillow use mode "I" for 16-bit PNG, all for PGM.
    is_16_bit = image.mode == "I" and image.format in ("PNG", "PPM")
    if image.mode in ("I", "F") and max_value <= 0 and not is_16_bit:
        raise NoRule(
            f"Its pixels are {'floats' if image.mode == 'F' else '32-bit or signed integers'}, so "
            "the value of white is unknown.\n"
            "Set INPUT.MAX_VALUE to it, such as 1.0 or 4095; or save the image with 8 bits.",
            "image needs INPUT.MAX_VALUE",
        )


def to_eight_bits(image: Image.Image, head: bytes, max_value: float) -> Image.Image:
    """Return a loaded image with 8 bits per channel.

    Args:
        image: image of any mode; 8-bit images are returned unchanged.
        head: first bytes of its file, for facts that Pillow does not give.
        max_value: white of grey images of more than 8 bits; 0 for 65535 in 16-bit images.

    Raises:
        NoRule: white is unknown or wrong, values would be lost in 8 bits, or only alpha varies.
    """
    if _is_deep(image):
        return _scaled(image, _white(image, head, max_value))
    if _is_reduced(image, head):
        _check_reduced(image, max_value)
    _check_alpha(image)
    # Pillow converts La to nothing else
    return image.convert("LA") if image.mode == "La" else image


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _white(image: Image.Image, head: bytes, max_value: float) -> float:
    """Return the value that becomes 255: the file's, else the config's, else 65535."""
    if declared := _declared_white(image, head):
        return declared
    if max_value > 0:
        return max_value
    check_white(image, max_value)
    largest = int(np.asarray(image).max())
    if 0 < largest <= _DARK:
        raise NoRule(
            _too_dark(f"Its largest value is {largest} of {_WHITE}"), "image needs INPUT.MAX_VALUE"
        )
    if 0 < largest <= _DIM:
        _say_dim()
    return _WHITE


def _declared_white(image: Image.Image, head: bytes) -> int:
    """Return the white of files that declare it: 12-bit TIFF, PGM and JPEG 2000."""
    if image.format == "TIFF" and image.mode == "I;16" and _bits(image) == 12:
        return 4095
    if image.format == "PPM" and image.mode == "I" and _ppm_white(head) not in (0, _WHITE):
        return _WHITE
    if image.format == "JPEG2000" and 8 < _jpeg2000_bits(head) < 16:
        return _WHITE
    return 0


def _scaled(image: Image.Image, white: float) -> Image.Image:
    """Scale an image of one channel to 8-bit grey, 0..``white`` to 0..255; refuse other values."""
    values = _values(image)
    if not np.isfinite(values).all():
        raise NoRule(
            "Its pixels hold NaN or infinite values.\nReplace them by numbers.", "image with NaN"
        )
    half_a_step = white / 510
    if values.min() < -half_a_step or values.max() > white + half_a_step:
        raise NoRule(
            f"Its values go from {values.min():g} to {values.max():g}, but INPUT.MAX_VALUE is "
            f"{white:g}.\n"
            "Values below 0 or above it would be lost. Set INPUT.MAX_VALUE to the largest value in "
            "all images, and shift negative values; or save them with 8 bits.",
            "values outside 0 to INPUT.MAX_VALUE",
        )
    if image.format == "TIFF" and _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        values = white - values  # Pillow does so for 8 bits only
    return Image.fromarray(np.rint(values * (255 / white)).clip(0, 255).astype(np.uint8))


def _values(image: Image.Image) -> np.ndarray:
    """Return the values of an image of one channel as float64. # shape: (H, W)"""
    values = np.asarray(image)
    is_unsigned = (
        image.format == "TIFF"
        and image.mode == "I"
        and _SIGNED not in _tag(image, _SAMPLE_FORMAT, ())
    )
    if is_unsigned and _bits(image) == 32:
        # Pillow reads the upper half of their range as negative numbers
        values = values.view(np.uint32)
    return values.astype(np.float64)


def _is_reduced(image: Image.Image, head: bytes) -> bool:
    """Return whether Pillow kept only the upper 8 of 16 bits, as it does for several channels."""
    if image.mode in ("1", "L", "P", "PA"):
        return False
    if image.format == "PNG":
        return head[24] == 16
    if image.format == "TIFF":
        return _bits(image) == 16
    if image.format == "PPM":
        return _ppm_white(head) == _WHITE
    return image.format == "JPEG2000" and _jpeg2000_bits(head) == 16


def _check_reduced(image: Image.Image, max_value: float) -> None:
    """Refuse a dark 16-bit colour image: Pillow returns only the upper 8 bits."""
    if max_value not in (0, _WHITE):
        raise NoRule(
            f"It has 16 bits in each of several channels, and INPUT.MAX_VALUE {max_value:g} is "
            "for grey images only.\n"
            "Save it with 8 bits per channel, scaled as the others are.",
            "colours of 16 bits beside INPUT.MAX_VALUE",
        )
    if image.mode == "CMYK":
        return  # its lowest value is white
    bands: Any = image.getextrema()  # (lowest, highest) of each channel
    colours = bands[:-1] if image.mode in _WITH_ALPHA else bands
    largest = 256 * max(high for _, high in colours) + 255
    if max_value == 0 and largest <= _DARK:
        raise NoRule(
            _too_dark(f"It has 16 bits in each of several channels, and no value above {largest}")
            + "\nIf the data has fewer bits, save such images with 8 bits per channel.",
            "colours of 16 bits, almost black",
        )


def _too_dark(found: str) -> str:
    return (
        f"{found}: it would be read as almost black.\n"
        "Set INPUT.MAX_VALUE to the value that is white, such as 4095 for 12 bits or 1023 for 10; "
        f"or to {_WHITE} if images are to be as dark as this."
    )


@cache
def _say_dim() -> None:
    """Log once per process that images are dark."""
    logger.warning(
        "A 16-bit image uses less than a quarter of its range, whose end, 65535, is read as "
        "white. If the data has fewer bits, set INPUT.MAX_VALUE, such as 16383 for 14."
    )


def _check_alpha(image: Image.Image) -> None:
    """Refuse an image that is visible only by its alpha channel, which is dropped."""
    if image.mode not in _WITH_ALPHA and not (image.mode == "P" and "transparency" in image.info):
        return
    bands: Any = (image.convert("RGBA") if image.mode in ("P", "PA") else image).getextrema()
    *colours, alpha = bands
    if alpha[0] < alpha[1] and all(low == high for low, high in colours):
        raise NoRule(
            "Only its alpha channel shows something, and that is dropped: all its pixels have the "
            "same colour.\n"
            "Put it on a background, and save it without alpha.",
            "image only in its alpha channel",
        )


def _check_pages(image: Any) -> None:
    """Refuse a TIFF of several pages, not counting smaller copies and masks."""
    pages = getattr(image, "n_frames", 1)
    if pages == 1:
        return
    for page in range(1, pages):
        image.seek(page)
        if not _tag(image, _SUBFILE_TYPE, 0) & (_SMALLER | _MASK):
            raise NoRule(
                f"It has {pages} pages, but only one would be read.\n"
                "Save each page to use as a separate file.",
                "image of several pages",
            )
    image.seek(0)


def _ppm_white(head: bytes) -> int:
    found = re.match(
        rb"P\d\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*(\d+)", head
    )
    return int(found[1]) if found else 0


def _jpeg2000_bits(head: bytes) -> int:
    # of the codestream; the byte at offset 42 is the first channel's depth minus one
    start = head.find(b"\xff\x4f\xff\x51")
    return (head[start + 42] & 0x7F) + 1 if 0 <= start < len(head) - 42 else 0


def _bits(image: Image.Image) -> int:
    return max(_tag(image, _BITS, (1,)))


def _tag(image: Image.Image, tag: int, default: Any) -> Any:
    return image.tag_v2.get(tag, default)  # type: ignore[attr-defined]  # of TiffImageFile
