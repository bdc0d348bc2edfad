"""Image files with every kind of pixel, and the 8-bit values that readers must return."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin

GREY = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=2)
ORIENTATION = 274


Tags = Sequence[tuple[int, int, tuple[int, ...]]]  # number, kind, values


class Sample(NamedTuple):
    """A file and its expected pixels, (H, W, 3) RGB."""

    suffix: str
    content: bytes
    pixels: np.ndarray
    tolerance: int = 0
    max_value: float = 0.0


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def png(values: np.ndarray, colour_type: int) -> bytes:
    """Return a PNG of 16 bits per channel, which Pillow cannot write in colour.

    Args:
        values: (H, W) or (H, W, C) uint16.
        colour_type: of the PNG header.
    """

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def tiff(
    data: bytes,
    bits: tuple[int, ...],
    photometric: int,
    *,
    extra: tuple[int, ...] = (),
    kind: int = 1,
    more: Tags = (),
) -> bytes:
    """Return a TIFF of 4 x 6 pixels; ``kind`` is 1 for unsigned, 2 for signed, 3 for float."""
    tags: list[tuple[int, int, tuple[int, ...]]] = [
        (256, 3, (6,)),
        (257, 3, (4,)),
        (258, 3, bits),
        (259, 3, (1,)),
        (262, 3, (photometric,)),
        (273, 4, (0,)),
        (277, 3, (len(bits),)),
        (278, 3, (4,)),
        (279, 4, (len(data),)),
    ]
    tags += [(338, 3, extra)] if extra else []
    tags.append((339, 3, (kind,) * len(bits)))
    tags = sorted([*(tag for tag in tags if tag[0] not in [other[0] for other in more]), *more])
    fields = {
        tag: struct.pack(f"<{len(values)}{' HI'[kind - 2]}", *values) for tag, kind, values in tags
    }
    outside = 8 + 2 + 12 * len(tags) + 4
    fields[273] = struct.pack(
        "<I", outside + sum(len(field) for field in fields.values() if len(field) > 4)
    )
    entries, blob = b"", b""
    for tag, kind_of_tag, values in tags:
        field = fields[tag]
        if len(field) > 4:
            place, blob = struct.pack("<I", outside + len(blob)), blob + field
        else:
            place = field.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, kind_of_tag, len(values)) + place
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + blob + data


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2).astype(np.uint8)


def _with_alpha() -> Image.Image:
    alpha = np.linspace(0, 255, GREY.size).astype(np.uint8).reshape(GREY.shape)
    return Image.fromarray(np.dstack([COLOUR, alpha]))


def _palette() -> Image.Image:
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6), "L")
    image.putpalette(COLOUR.reshape(-1).tobytes())
    return image


def _via(mode: str) -> tuple[Image.Image, np.ndarray]:
    image = Image.fromarray(COLOUR).convert(mode)
    return image, np.asarray(image.convert("RGB"))


# Ramps over the range of 16 and of 12 bits, and what 8 bits make of them.
RAMP = np.linspace(0, 65535, 24).round().astype(np.uint16).reshape(4, 6)
TWELVE = np.linspace(0, 4095, 24).round().astype(np.uint16).reshape(4, 6)
UNIT = (TWELVE / 4095).astype(np.float32)
RAMP_GREY = _grey(np.rint(RAMP / 257))
TWELVE_GREY = _grey(np.rint(TWELVE * (255 / 4095)))
COLOUR_16 = COLOUR.astype(np.uint16) * 257
GREY_16 = GREY.astype(np.uint16) * 257
FRAMES = [Image.fromarray(255 - COLOUR), Image.fromarray(COLOUR[::-1])]
BEST_JPEG = {"quality": 100, "subsampling": 0}


def samples() -> dict[str, Sample]:
    """Return all supported kinds by name."""
    return {
        **greys(),
        **colours(),
        **palettes(),
        **animations(),
        **other_colour_spaces(),
        **sixteen_bits(),
        **twelve_bits(),
        **thirty_two_bits(),
        **rotated(),
    }


def _colour(suffix: str, file_format: str, tolerance: int = 0, **options: object) -> Sample:
    return Sample(
        suffix, encoded(Image.fromarray(COLOUR), file_format, **options), COLOUR, tolerance
    )


def greys() -> dict[str, Sample]:
    bilevel = GREY > 100
    black_and_white = _grey(bilevel * 255)
    grey, mask = Image.fromarray(GREY), Image.fromarray(bilevel)
    with_alpha = Image.merge("LA", [grey, grey])
    return {
        "grey png": Sample("png", encoded(grey, "PNG"), _grey(GREY)),
        "grey bmp": Sample("bmp", encoded(grey, "BMP"), _grey(GREY)),
        "grey tiff, 0 is white": Sample("tif", tiff((255 - GREY).tobytes(), (8,), 0), _grey(GREY)),
        "bilevel png": Sample("png", encoded(mask, "PNG"), black_and_white),
        "bilevel tiff": Sample("tif", encoded(mask, "TIFF", compression="group4"), black_and_white),
        "grey with alpha": Sample("png", encoded(with_alpha, "PNG"), _grey(GREY)),
    }


def colours() -> dict[str, Sample]:
    four_channels = np.dstack([COLOUR, GREY]).tobytes()
    return {
        "rgb png": _colour("png", "PNG"),
        "rgb bmp": _colour("bmp", "BMP"),
        "rgb ppm": _colour("ppm", "PPM"),
        "rgb tiff": _colour("tif", "TIFF", compression="tiff_lzw"),
        "rgb webp": _colour("webp", "WEBP", lossless=True),
        "rgb jpeg 2000": _colour("jp2", "JPEG2000"),
        "rgb jpeg": _colour("jpg", "JPEG", 3, **BEST_JPEG),
        "jpeg of a phone, with a second image": _colour(
            "jpg", "MPO", 3, save_all=True, append_images=FRAMES[:1], **BEST_JPEG
        ),
        "alpha": Sample("png", encoded(_with_alpha(), "PNG"), COLOUR),
        "rgb and a fourth channel": Sample(
            "tif", tiff(four_channels, (8,) * 4, 2, extra=(0,)), COLOUR
        ),
    }


def palettes() -> dict[str, Sample]:
    with_clear = _palette()
    with_clear.info["transparency"] = 3
    return {
        "palette png": Sample("png", encoded(_palette(), "PNG"), COLOUR),
        "palette with transparency": Sample("png", encoded(with_clear, "PNG"), COLOUR),
        "palette gif": Sample("gif", encoded(_palette(), "GIF"), COLOUR),
        "palette tiff": Sample("tif", encoded(_palette(), "TIFF"), COLOUR),
    }


def animations() -> dict[str, Sample]:
    frames = {"save_all": True, "append_images": FRAMES}
    return {
        "animated png": _colour("png", "PNG", **frames),
        "animated gif": Sample("gif", encoded(_palette(), "GIF", **frames), COLOUR),
        "animated webp": _colour("webp", "WEBP", lossless=True, **frames),
    }


def other_colour_spaces() -> dict[str, Sample]:
    cmyk, cmyk_pixels = _via("CMYK")
    lab, lab_pixels = _via("LAB")
    ycbcr, ycbcr_pixels = _via("YCbCr")
    no_ink = np.full((4, 6, 4), 5, np.uint16)
    white = np.full((4, 6, 3), 255, np.uint8)
    return {
        "cmyk tiff": Sample("tif", encoded(cmyk, "TIFF"), cmyk_pixels),
        "cmyk jpeg": Sample("jpg", encoded(cmyk, "JPEG", **BEST_JPEG), cmyk_pixels, 3),
        "lab tiff": Sample("tif", encoded(lab, "TIFF"), lab_pixels),
        "ycbcr tiff": Sample("tif", encoded(ycbcr, "TIFF"), ycbcr_pixels),
        "16-bit cmyk, almost white": Sample("tif", tiff(no_ink.tobytes(), (16,) * 4, 5), white),
    }


def sixteen_bits() -> dict[str, Sample]:
    ramp, swapped = Image.fromarray(RAMP), Image.fromarray(RAMP.astype(">u2"))
    inverted = tiff((65535 - RAMP).tobytes(), (16,), 0)
    pgm = b"P5 6 4 65535\n" + RAMP.astype(">u2").tobytes()
    with_alpha = png(np.dstack([COLOUR_16, RAMP]), 6)
    grey_with_alpha = png(np.dstack([GREY_16, RAMP]), 4)
    return {
        "16-bit png": Sample("png", encoded(ramp, "PNG"), RAMP_GREY),
        "16-bit png of spread 8 bits": Sample(
            "png", encoded(Image.fromarray(GREY_16), "PNG"), _grey(GREY)
        ),
        "16-bit tiff": Sample("tif", encoded(ramp, "TIFF"), RAMP_GREY),
        "16-bit tiff, big-endian": Sample(
            "tif", encoded(swapped, "TIFF", big_tiff=False), RAMP_GREY
        ),
        "16-bit tiff, 0 is white": Sample("tif", inverted, RAMP_GREY),
        "16-bit jpeg 2000": Sample("jp2", encoded(ramp, "JPEG2000"), RAMP_GREY),
        "16-bit pgm": Sample("pgm", pgm, RAMP_GREY),
        "16-bit colour png": Sample("png", png(COLOUR_16, 2), COLOUR),
        "16-bit colour tiff": Sample("tif", tiff(COLOUR_16.tobytes(), (16,) * 3, 2), COLOUR),
        "16-bit colour and alpha": Sample("png", with_alpha, COLOUR),
        "16-bit grey and alpha": Sample("png", grey_with_alpha, _grey(GREY)),
    }


def twelve_bits() -> dict[str, Sample]:
    values = TWELVE.astype(">u2").tobytes()
    colours = (COLOUR.astype(float) * 4095 / 255).round().astype(">u2").tobytes()
    signed = tiff(TWELVE.astype(np.int16).tobytes(), (16,), 1, kind=2)
    twelve_png = encoded(Image.fromarray(TWELVE), "PNG")
    return {
        "12-bit pgm": Sample("pgm", b"P5\n# by hand\n6 4\n4095\n" + values, TWELVE_GREY),
        "12-bit pgm beside 12-bit png": Sample(
            "pgm", b"P5 6 4 4095\n" + values, TWELVE_GREY, max_value=4095.0
        ),
        "12-bit png": Sample("png", twelve_png, TWELVE_GREY, max_value=4095.0),
        "12-bit tiff": Sample("tif", tiff(_packed_12(TWELVE), (12,), 1), TWELVE_GREY),
        "12-bit colour ppm": Sample("ppm", b"P6 6 4 4095\n" + colours, COLOUR, 1),
        "16-bit signed": Sample("tif", signed, TWELVE_GREY, max_value=4095.0),
    }


def thirty_two_bits() -> dict[str, Sample]:
    integers = tiff(TWELVE.astype(np.uint32).tobytes(), (32,), 1)
    upper_half = tiff((RAMP * np.uint32(65537)).tobytes(), (32,), 1)
    inverted = tiff((1 - UNIT).tobytes(), (32,), 0, kind=3)
    return {
        "32-bit integers": Sample("tif", integers, TWELVE_GREY, max_value=4095.0),
        "32-bit integers, the upper half unsigned": Sample(
            "tif", upper_half, RAMP_GREY, max_value=4294967295.0
        ),
        "floats": Sample("tif", encoded(Image.fromarray(UNIT), "TIFF"), TWELVE_GREY, max_value=1.0),
        "floats, 0 is white": Sample("tif", inverted, TWELVE_GREY, 1, 1.0),
    }


def rotated() -> dict[str, Sample]:
    """Return images with an EXIF orientation."""
    return {
        "exif jpeg": _rotated("jpg", "JPEG", **BEST_JPEG)._replace(tolerance=3),
        "exif png": _rotated("png", "PNG"),
        "exif webp": _rotated("webp", "WEBP", lossless=True),
        "exif tiff": _rotated("tif", "TIFF"),
        "exif 16-bit png": _rotated_16_bits(),
    }


def _rotated(suffix: str, file_format: str, **options: object) -> Sample:
    content = encoded(Image.fromarray(COLOUR), file_format, exif=_orientation(6), **options)
    return Sample(suffix, content, np.rot90(COLOUR, -1))


def _rotated_16_bits() -> Sample:
    content = encoded(Image.fromarray(GREY_16), "PNG", exif=_orientation(6))
    return Sample("png", content, np.rot90(_grey(GREY), -1))


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return exif


def _packed_12(values: np.ndarray) -> bytes:
    first, second = values.reshape(-1, 2).T.astype(int)
    return (
        np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
        .astype(np.uint8)
        .tobytes()
    )


def _long_text() -> PngImagePlugin.PngInfo:
    text = PngImagePlugin.PngInfo()
    text.add_text("note", "x" * 2_000_000, zip=True)
    return text


def _frame(start: bytes) -> bytes:
    """Return a JPEG with another start of frame."""
    return encoded(Image.fromarray(COLOUR), "JPEG").replace(b"\xff\xc0\x00\x11\x08", start)


def _without_pixels() -> bytes:
    return png(np.zeros((1, 1), np.uint16), 0).replace(struct.pack(">II", 1, 1), bytes(8), 1)


def _cut_tiff() -> bytes:
    return encoded(Image.fromarray(COLOUR), "TIFF", compression="tiff_lzw")[:-60]


Refused = tuple[str, bytes, str]  # suffix, content, and a pattern of the message


def refused() -> dict[str, Refused]:
    """Return all refused kinds by name."""
    return {
        **without_white(),
        **refused_tiffs(),
        **refused_contents(),
        **foreign_files(),
        **refused_jpegs(),
        **damaged_files(),
    }


KEY = r"INPUT\.MAX_VALUE"


def without_white() -> dict[str, Refused]:
    """Return images with an unknown white, which need INPUT.MAX_VALUE."""
    dark = np.linspace(0, 4095, 24).astype(np.uint16).reshape(4, 6)
    colours = np.dstack([dark] * 3)
    in_16_bits = encoded(Image.fromarray(GREY.astype(np.uint16)), "PNG")
    integers = tiff(np.full(24, 9, np.uint32).tobytes(), (32,), 1)
    signed = tiff(np.full(24, 9, np.int16).tobytes(), (16,), 1, kind=2)
    nan = Image.fromarray(np.full((4, 6), np.nan, np.float32))
    of_colours = f"several channels.*{KEY}.*8 bits per channel"
    return {
        "12-bit png": (
            "png",
            encoded(Image.fromarray(dark), "PNG"),
            f"4095 of 65535.*{KEY}.*4095 for 12 bits",
        ),
        "8 bits in 16": ("png", in_16_bits, f"230 of 65535.*{KEY}"),
        "12-bit tiff of 16": ("tif", encoded(Image.fromarray(dark), "TIFF"), KEY),
        "12-bit colours": ("png", png(colours, 2), of_colours),
        "12-bit colours with alpha": ("png", png(np.dstack([colours, dark * 16]), 6), KEY),
        "8 bits in 16-bit colours": ("png", png(COLOUR.astype(np.uint16), 2), KEY),
        "32-bit integers": ("tif", integers, f"32-bit.*{KEY}"),
        "16-bit signed": ("tif", signed, f"signed.*{KEY}"),
        "floats": ("tif", encoded(nan, "TIFF"), f"floats.*{KEY}"),
        "portable float map": ("pfm", b"Pf\n6 4\n-1.0\n" + bytes(96), KEY),
    }


def refused_tiffs() -> dict[str, Refused]:
    five = bytes(120)
    planar = tiff(bytes(144), (16,) * 3, 2, more=[(284, 3, (2,))])
    palette = tiff(GREY.tobytes(), (8,), 3, more=[(320, 3, tuple(range(256)) * 3)])
    page = Image.fromarray(GREY)
    pages = encoded(page, "TIFF", save_all=True, append_images=[page])
    return {
        "signed bytes": ("tif", tiff(GREY.tobytes(), (8,), 1, kind=2), "signed bytes"),
        "doubles": ("tif", tiff(bytes(24 * 8), (64,), 1, kind=3), "TIFF.*not supported"),
        "five channels": (
            "tif",
            tiff(five, (8,) * 5, 1, extra=(0,) * 4),
            "supported are 1, 3 or 4 channels",
        ),
        "rgb and two channels": (
            "tif",
            tiff(five, (8,) * 5, 2, extra=(0, 0)),
            "It has 5 channels",
        ),
        "cmyk and a channel": ("tif", tiff(five, (8,) * 5, 5, extra=(0,)), "It has 5 channels"),
        "two channels": ("tif", tiff(bytes(48), (8, 8), 1, extra=(0,)), "It has 2 channels"),
        "planar colours of 16 bits": ("tif", planar, "planar.*interleaved"),
        "palette of 8 bits in tiff": ("tif", palette, "palette.*black"),
        "pages": ("tif", pages, "It has 2 pages"),
    }


def refused_contents() -> dict[str, Refused]:
    in_alpha = np.dstack([np.zeros((4, 6, 3), np.uint8), GREY])
    bomb = png(np.zeros((1, 1), np.uint16), 0)[:16] + struct.pack(">II", 60000, 60000) + bytes(20)
    return {
        "drawn only in alpha": (
            "png",
            encoded(Image.fromarray(in_alpha), "PNG"),
            "Only its alpha channel",
        ),
        "png with a very long text": (
            "png",
            encoded(Image.fromarray(GREY), "PNG", pnginfo=_long_text()),
            "a text of that length.*exiftool",
        ),
        "bomb": ("png", bomb, ""),
    }


def foreign_files() -> dict[str, Refused]:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
    icon = encoded(Image.fromarray(COLOUR), "ICO", sizes=[(6, 4)])
    targa = encoded(Image.fromarray(COLOUR), "TGA")
    return {
        "postscript": ("jpg", postscript, "It is PostScript.*JPEG"),
        "pdf": ("jpg", b"%PDF-1.7\n", "It is a PDF"),
        "photoshop": ("jpg", b"8BPS" + bytes(40), "Photoshop"),
        "icon": ("png", icon, "an icon"),
        "svg": ("png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        "web page after a byte order mark": ("jpg", b"\xef\xbb\xbf<!DOCTYPE html>", "a web page"),
        "lfs pointer": ("jpg", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        "numpy": ("png", b"\x93NUMPY\x01\0", "NumPy"),
        "heic": ("jpg", b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        "heif of another brand": ("jpg", b"\0\0\0\x18ftypmif1" + bytes(40), "It is HEIF"),
        "dicom": ("jpg", bytes(128) + b"DICM", "DICOM"),
        "jpeg xl": ("jpg", b"\xff\x0a" + bytes(40), "It is JPEG XL"),
        "targa": ("jpg", targa, "Supported formats: JPEG, PNG"),
    }


def refused_jpegs() -> dict[str, Refused]:
    jpeg_ls = b"\xff\xd8\xff\xf7\x00\x0b\x08" + bytes(40)
    return {
        "jpeg of 12 bits": ("jpg", _frame(b"\xff\xc1\x00\x11\x0c"), "It is a JPEG of 12 bits"),
        "lossless jpeg": ("jpg", _frame(b"\xff\xc3\x00\x11\x08"), "It is a lossless JPEG"),
        "jpeg-ls": ("jpg", jpeg_ls, "It is a lossless JPEG"),
    }


def damaged_files() -> dict[str, Refused]:
    colour_floats = b"PF\n6 4\n-1.0\n" + bytes(288)
    return {
        "nothing": ("jpg", b"", "The file is empty"),
        "png without pixels": ("png", _without_pixels(), "begins as PNG.*has no pixels"),
        "gif without pixels": ("gif", b"GIF89a" + bytes(7) + b";", "begins as GIF"),
        "colour floats": ("pfm", colour_floats, "begins as a colour float map"),
        "truncated tiff": ("tif", _cut_tiff(), "a damaged TIFF.*download it again"),
    }
