"""Image files of every kind of pixel, with the 8-bit values that reading them must give."""

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
    """A file, and what is read of it: (H, W, 3) RGB."""

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
    """Return a PNG of 16 bits per channel, which Pillow cannot write in colour: values (H, W) or (H, W, C) uint16."""

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
    """Return a TIFF of 4 x 6 pixels. ``kind`` is the sample format: 1 unsigned, 2 signed, 3 float."""
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


def _turned(suffix: str, file_format: str, **options: object) -> Sample:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = encoded(Image.fromarray(COLOUR), file_format, exif=exif, **options)
    return Sample(suffix, content, np.rot90(COLOUR, -1))


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


def samples() -> dict[str, Sample]:
    """Return all kinds that are read, by name."""
    deep = GREY.astype(np.uint16) * 257
    ramp = np.linspace(0, 65535, 24).round().astype(np.uint16).reshape(4, 6)
    ramp_grey = _grey(np.rint(ramp / 257))
    twelve = np.linspace(0, 4095, 24).round().astype(np.uint16).reshape(4, 6)
    twelve_grey = _grey(np.rint(twelve * (255 / 4095)))
    bilevel = GREY > 100
    lossless = {"webp": {"lossless": True}, "jp2": {}}
    with_clear = _palette()
    with_clear.info["transparency"] = 3
    frames = [Image.fromarray(255 - COLOUR), Image.fromarray(COLOUR[::-1])]
    cmyk, cmyk_pixels = _via("CMYK")
    lab, lab_pixels = _via("LAB")
    ycbcr, ycbcr_pixels = _via("YCbCr")
    half = (twelve / 4095).astype(np.float32)
    alpha16 = np.dstack([COLOUR.astype(np.uint16) * 257, ramp])
    return {
        "grey png": Sample("png", encoded(Image.fromarray(GREY), "PNG"), _grey(GREY)),
        "grey bmp": Sample("bmp", encoded(Image.fromarray(GREY), "BMP"), _grey(GREY)),
        "grey tiff, 0 is white": Sample("tif", tiff((255 - GREY).tobytes(), (8,), 0), _grey(GREY)),
        "rgb png": Sample("png", encoded(Image.fromarray(COLOUR), "PNG"), COLOUR),
        "rgb bmp": Sample("bmp", encoded(Image.fromarray(COLOUR), "BMP"), COLOUR),
        "rgb ppm": Sample("ppm", encoded(Image.fromarray(COLOUR), "PPM"), COLOUR),
        "rgb tiff": Sample(
            "tif", encoded(Image.fromarray(COLOUR), "TIFF", compression="tiff_lzw"), COLOUR
        ),
        "palette tiff": Sample("tif", encoded(_palette(), "TIFF"), COLOUR),
        "rgb webp": Sample(
            "webp", encoded(Image.fromarray(COLOUR), "WEBP", **lossless["webp"]), COLOUR
        ),
        "rgb jpeg 2000": Sample("jp2", encoded(Image.fromarray(COLOUR), "JPEG2000"), COLOUR),
        "rgb jpeg": Sample(
            "jpg", encoded(Image.fromarray(COLOUR), "JPEG", quality=100, subsampling=0), COLOUR, 3
        ),
        "jpeg of a phone, with a second image": Sample(
            "jpg",
            encoded(
                Image.fromarray(COLOUR),
                "MPO",
                quality=100,
                subsampling=0,
                save_all=True,
                append_images=[frames[0]],
            ),
            COLOUR,
            3,
        ),
        "bilevel png": Sample(
            "png", encoded(Image.fromarray(bilevel), "PNG"), _grey(bilevel * 255)
        ),
        "bilevel tiff": Sample(
            "tif",
            encoded(Image.fromarray(bilevel), "TIFF", compression="group4"),
            _grey(bilevel * 255),
        ),
        "alpha": Sample("png", encoded(_with_alpha(), "PNG"), COLOUR),
        "grey with alpha": Sample(
            "png",
            encoded(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(GREY)]), "PNG"),
            _grey(GREY),
        ),
        "palette png": Sample("png", encoded(_palette(), "PNG"), COLOUR),
        "palette with transparency": Sample("png", encoded(with_clear, "PNG"), COLOUR),
        "palette gif": Sample("gif", encoded(_palette(), "GIF"), COLOUR),
        "animated png": Sample(
            "png",
            encoded(Image.fromarray(COLOUR), "PNG", save_all=True, append_images=frames),
            COLOUR,
        ),
        "animated gif": Sample(
            "gif", encoded(_palette(), "GIF", save_all=True, append_images=frames), COLOUR
        ),
        "animated webp": Sample(
            "webp",
            encoded(
                Image.fromarray(COLOUR), "WEBP", lossless=True, save_all=True, append_images=frames
            ),
            COLOUR,
        ),
        "cmyk tiff": Sample("tif", encoded(cmyk, "TIFF"), cmyk_pixels),
        "cmyk jpeg": Sample(
            "jpg", encoded(cmyk, "JPEG", quality=100, subsampling=0), cmyk_pixels, 3
        ),
        "lab tiff": Sample("tif", encoded(lab, "TIFF"), lab_pixels),
        "ycbcr tiff": Sample("tif", encoded(ycbcr, "TIFF"), ycbcr_pixels),
        "16-bit png": Sample("png", encoded(Image.fromarray(ramp), "PNG"), ramp_grey),
        "16-bit png that 8 bits were spread to": Sample(
            "png", encoded(Image.fromarray(deep), "PNG"), _grey(GREY)
        ),
        "16-bit tiff": Sample("tif", encoded(Image.fromarray(ramp), "TIFF"), ramp_grey),
        "16-bit tiff, big-endian": Sample(
            "tif", encoded(Image.fromarray(ramp.astype(">u2")), "TIFF", big_tiff=False), ramp_grey
        ),
        "16-bit tiff, 0 is white": Sample(
            "tif", tiff((65535 - ramp).tobytes(), (16,), 0), ramp_grey
        ),
        "16-bit jpeg 2000": Sample("jp2", encoded(Image.fromarray(ramp), "JPEG2000"), ramp_grey),
        "16-bit pgm": Sample("pgm", b"P5 6 4 65535\n" + ramp.astype(">u2").tobytes(), ramp_grey),
        "12-bit pgm": Sample(
            "pgm", b"P5\n# by hand\n6 4\n4095\n" + twelve.astype(">u2").tobytes(), twelve_grey
        ),
        "12-bit pgm beside 12-bit png": Sample(
            "pgm", b"P5 6 4 4095\n" + twelve.astype(">u2").tobytes(), twelve_grey, max_value=4095.0
        ),
        "12-bit png": Sample(
            "png", encoded(Image.fromarray(twelve), "PNG"), twelve_grey, max_value=4095.0
        ),
        "12-bit tiff": Sample("tif", tiff(_packed_12(twelve), (12,), 1), twelve_grey),
        "16-bit colour png": Sample("png", png(COLOUR.astype(np.uint16) * 257, 2), COLOUR),
        "16-bit colour tiff": Sample(
            "tif", tiff((COLOUR.astype(np.uint16) * 257).tobytes(), (16,) * 3, 2), COLOUR
        ),
        "16-bit colour and alpha": Sample("png", png(alpha16, 6), COLOUR),
        "16-bit grey and alpha": Sample("png", png(np.dstack([deep, ramp]), 4), _grey(GREY)),
        "16-bit colour ppm": Sample("ppm", b"P6 6 4 4095\n" + _twelve_colours(), COLOUR, 1),
        "32-bit integers": Sample(
            "tif", tiff(twelve.astype(np.uint32).tobytes(), (32,), 1), twelve_grey, max_value=4095.0
        ),
        "32-bit integers, the upper half unsigned": Sample(
            "tif",
            tiff((ramp * np.uint32(65537)).tobytes(), (32,), 1),
            ramp_grey,
            max_value=4294967295.0,
        ),
        "16-bit signed": Sample(
            "tif",
            tiff(twelve.astype(np.int16).tobytes(), (16,), 1, kind=2),
            twelve_grey,
            max_value=4095.0,
        ),
        "16-bit cmyk, almost white": Sample(
            "tif",
            tiff(np.full((4, 6, 4), 5, np.uint16).tobytes(), (16,) * 4, 5),
            np.full((4, 6, 3), 255, np.uint8),
        ),
        "floats": Sample("tif", encoded(Image.fromarray(half), "TIFF"), twelve_grey, max_value=1.0),
        "floats, 0 is white": Sample(
            "tif", tiff((1 - half).tobytes(), (32,), 0, kind=3), twelve_grey, 1, 1.0
        ),
        "exif jpeg": _turned("jpg", "JPEG", quality=100, subsampling=0)._replace(tolerance=3),
        "exif png": _turned("png", "PNG"),
        "exif webp": _turned("webp", "WEBP", lossless=True),
        "exif tiff": _turned("tif", "TIFF"),
        "exif 16-bit png": _deep_turned(),
        "rgb and a fourth channel": Sample(
            "tif", tiff(np.dstack([COLOUR, GREY]).tobytes(), (8,) * 4, 2, extra=(0,)), COLOUR
        ),
    }


def _deep_turned() -> Sample:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG", exif=exif)
    return Sample("png", content, np.rot90(_grey(GREY), -1))


def _packed_12(values: np.ndarray) -> bytes:
    first, second = values.reshape(-1, 2).T.astype(int)
    return (
        np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
        .astype(np.uint8)
        .tobytes()
    )


def _twelve_colours() -> bytes:
    return (COLOUR.astype(float) * 4095 / 255).round().astype(">u2").tobytes()


def _long_text() -> PngImagePlugin.PngInfo:
    text = PngImagePlugin.PngInfo()
    text.add_text("note", "x" * 2_000_000, zip=True)
    return text


def _frame(start: bytes) -> bytes:
    """Return a JPEG whose frame says that it is of another kind."""
    return encoded(Image.fromarray(COLOUR), "JPEG").replace(b"\xff\xc0\x00\x11\x08", start)


def _without_pixels() -> bytes:
    return png(np.zeros((1, 1), np.uint16), 0).replace(struct.pack(">II", 1, 1), bytes(8), 1)


def _cut_tiff() -> bytes:
    return encoded(Image.fromarray(COLOUR), "TIFF", compression="tiff_lzw")[:-60]


def refused() -> dict[str, tuple[str, bytes, str]]:
    """Return kinds that are refused, by name: suffix, content, and what the message says."""
    dark = np.linspace(0, 4095, 24).astype(np.uint16).reshape(4, 6)
    alone = np.dstack([np.zeros((4, 6, 3), np.uint8), GREY])
    nan = np.full((4, 6), np.nan, np.float32)
    pages = [Image.fromarray(GREY), Image.fromarray(GREY)]
    key = r"INPUT\.MAX_VALUE"
    return {
        "12-bit png": (
            "png",
            encoded(Image.fromarray(dark), "PNG"),
            f"4095 of 65535.*{key}.*4095 for 12 bits",
        ),
        "8 bits in 16": (
            "png",
            encoded(Image.fromarray(GREY.astype(np.uint16)), "PNG"),
            f"230 of 65535.*{key}",
        ),
        "12-bit tiff of 16": ("tif", encoded(Image.fromarray(dark), "TIFF"), key),
        "12-bit colours": (
            "png",
            png(np.dstack([dark] * 3), 2),
            f"several channels.*{key}.*8 bits per channel",
        ),
        "12-bit colours under alpha": ("png", png(np.dstack([dark] * 3 + [dark * 16]), 6), key),
        "8 bits in 16-bit colours": ("png", png(COLOUR.astype(np.uint16), 2), key),
        "32-bit integers": (
            "tif",
            tiff(np.full(24, 9, np.uint32).tobytes(), (32,), 1),
            f"32-bit.*{key}",
        ),
        "16-bit signed": (
            "tif",
            tiff(np.full(24, 9, np.int16).tobytes(), (16,), 1, kind=2),
            f"signed.*{key}",
        ),
        "signed bytes": ("tif", tiff(GREY.tobytes(), (8,), 1, kind=2), "signed bytes"),
        "floats": ("tif", encoded(Image.fromarray(nan), "TIFF"), f"floats.*{key}"),
        "portable float map": ("pfm", b"Pf\n6 4\n-1.0\n" + bytes(96), key),
        "doubles": (
            "tif",
            tiff(bytes(24 * 8), (64,), 1, kind=3),
            "TIFF of a kind that is not read",
        ),
        "five channels": (
            "tif",
            tiff(bytes(120), (8,) * 5, 1, extra=(0,) * 4),
            "not of 1, 3 or 4 channels",
        ),
        "rgb and two channels": (
            "tif",
            tiff(bytes(120), (8,) * 5, 2, extra=(0, 0)),
            "It has 5 channels",
        ),
        "cmyk and a channel": (
            "tif",
            tiff(bytes(120), (8,) * 5, 5, extra=(0,)),
            "It has 5 channels",
        ),
        "two channels": ("tif", tiff(bytes(48), (8, 8), 1, extra=(0,)), "It has 2 channels"),
        "planar colours of 16 bits": (
            "tif",
            tiff(bytes(144), (16,) * 3, 2, more=[(284, 3, (2,))]),
            "planar.*interleaved",
        ),
        "palette of 8 bits in tiff": (
            "tif",
            tiff(GREY.tobytes(), (8,), 3, more=[(320, 3, tuple(range(256)) * 3)]),
            "palette.*black",
        ),
        "png with a text without end": (
            "png",
            encoded(Image.fromarray(GREY), "PNG", pnginfo=_long_text()),
            "A text of that length.*exiftool",
        ),
        "pages": (
            "tif",
            encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]),
            "It has 2 pages",
        ),
        "drawn in alpha alone": (
            "png",
            encoded(Image.fromarray(alone), "PNG"),
            "alpha channel alone",
        ),
        "postscript": (
            "jpg",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
            "It is PostScript.*JPEG",
        ),
        "pdf": ("jpg", b"%PDF-1.7\n", "It is a PDF"),
        "photoshop": ("jpg", b"8BPS" + bytes(40), "Photoshop"),
        "icon": ("png", encoded(Image.fromarray(COLOUR), "ICO", sizes=[(6, 4)]), "an icon"),
        "svg": ("png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        "web page behind a byte order mark": ("jpg", b"\xef\xbb\xbf<!DOCTYPE html>", "a web page"),
        "lfs pointer": ("jpg", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        "numpy": ("png", b"\x93NUMPY\x01\0", "NumPy"),
        "heic": ("jpg", b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        "dicom": ("jpg", bytes(128) + b"DICM", "DICOM"),
        "nothing": ("jpg", b"", "The file is empty"),
        "jpeg of 12 bits": ("jpg", _frame(b"\xff\xc1\x00\x11\x0c"), "It is a JPEG of 12 bits"),
        "lossless jpeg": ("jpg", _frame(b"\xff\xc3\x00\x11\x08"), "It is a lossless JPEG"),
        "jpeg-ls": ("jpg", b"\xff\xd8\xff\xf7\x00\x0b\x08" + bytes(40), "It is a lossless JPEG"),
        "jpeg xl": ("jpg", b"\xff\x0a" + bytes(40), "It is JPEG XL"),
        "heif of another brand": ("jpg", b"\0\0\0\x18ftypmif1" + bytes(40), "It is HEIF"),
        "png without pixels": ("png", _without_pixels(), "begins as PNG.*of no size"),
        "gif without pixels": ("gif", b"GIF89a" + bytes(7) + b";", "begins as GIF"),
        "colour floats": ("pfm", b"PF\n6 4\n-1.0\n" + bytes(288), "begins as a colour float map"),
        "tiff whose end is missing": ("tif", _cut_tiff(), "or a damaged one.*fetch it again"),
        "targa": ("jpg", encoded(Image.fromarray(COLOUR), "TGA"), "Read are JPEG, PNG"),
        "bomb": (
            "png",
            png(np.zeros((1, 1), np.uint16), 0)[:16] + struct.pack(">II", 60000, 60000) + bytes(20),
            "",
        ),
    }
