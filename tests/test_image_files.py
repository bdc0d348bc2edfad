import os
import socket
import struct
import zlib

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image as detectron2_read_image
from PIL import Image

from tests.image_samples import COLOUR, GREY, ORIENTATION, encoded, refused, samples
from virtex_det.image_files import (
    BrokenImage,
    check_eight_bits,
    inspect_image,
    load_image,
    stored_orientation,
)

SAMPLES, REFUSED = samples(), refused()


@pytest.mark.parametrize("kind", SAMPLES)
def test_each_kind_of_pixel_is_read_by_its_rule(kind, tmp_path):
    sample = SAMPLES[kind]
    path = tmp_path / f"image.{sample.suffix}"
    path.write_bytes(sample.content)
    for source in (path, str(path), sample.content):
        pixels = np.asarray(load_image(source, sample.max_value).convert("RGB"))
        assert pixels.dtype == np.uint8 and pixels.shape == sample.pixels.shape
        assert np.abs(pixels.astype(int) - sample.pixels).max() <= sample.tolerance
    assert inspect_image(path, sample.max_value) == sample.pixels.shape[:2]


@pytest.mark.parametrize("kind", REFUSED)
def test_the_error_for_each_other_kind_names_it_with_advice(kind, tmp_path):
    suffix, content, message = REFUSED[kind]
    path = tmp_path / f"image.{suffix}"
    path.write_bytes(content)
    with pytest.raises(BrokenImage, match=rf"(?s)image\.{suffix}\n.*{message}") as error:
        load_image(path)
    assert 2 <= len(str(error.value).splitlines()) <= 6 and error.value.reason


# Pillow turns a TIFF by itself, and Detectron2 once more.
EIGHT_BITS = [
    kind for kind in SAMPLES if "bit" not in kind and "float" not in kind and kind != "exif tiff"
]


@pytest.mark.parametrize("kind", EIGHT_BITS)
def test_eight_bits_are_those_that_detectron2_reads(kind, tmp_path):
    path = tmp_path / f"image.{SAMPLES[kind].suffix}"
    path.write_bytes(SAMPLES[kind].content)
    assert np.array_equal(
        np.asarray(load_image(path).convert("RGB")), detectron2_read_image(str(path), "RGB")
    )


def test_real_images_are_those_that_detectron2_reads(samples):
    files = sorted((samples / "coco_mini/val2017").glob("*.jpg"))[:8]
    for file in [*files, *sorted((samples / "lvis_100").rglob("*.jpg"))[:4]]:
        assert np.array_equal(
            np.asarray(load_image(file).convert("RGB")), detectron2_read_image(str(file), "RGB")
        )


def test_white_can_be_stated_to_keep_dark_images_as_dark_as_they_are():
    dark = np.full((4, 6), 4000, np.uint16)
    content = encoded(Image.fromarray(dark), "PNG")
    assert (np.asarray(load_image(content, 65535)) == round(4000 / 257)).all()
    assert (np.asarray(load_image(encoded(Image.fromarray(dark * 0), "PNG"))) == 0).all()


@pytest.mark.parametrize(
    "values, found", [([0, 5000], "5000"), ([-9, 4095], "-9"), ([0, 70000], "70000")]
)
def test_values_that_white_would_cut_off_are_refused(values, found):
    content = encoded(Image.fromarray(np.array([values], np.int32)), "TIFF")
    with pytest.raises(BrokenImage, match=rf"(?s){found}.*INPUT\.MAX_VALUE is 4095"):
        load_image(content, 4095)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(value):
    content = encoded(Image.fromarray(np.array([[0.5, value]], np.float32)), "TIFF")
    with pytest.raises(BrokenImage, match="NaN or infinite"):
        load_image(content, 1.0)


def test_colours_of_16_bits_are_not_scaled_by_the_white_of_grey_images():
    with pytest.raises(BrokenImage, match=r"INPUT\.MAX_VALUE 4095 is for grey images only"):
        load_image(SAMPLES["16-bit colour png"].content, 4095)


def test_the_log_says_once_that_16_bit_images_are_dim(caplog):
    content = encoded(Image.fromarray(np.full((4, 6), 16383, np.uint16)), "PNG")
    for _ in range(3):
        assert (np.asarray(load_image(content)) == 64).all()
    assert caplog.text.count("INPUT.MAX_VALUE, such as 16383") <= 1


def test_smaller_copies_in_a_tiff_are_not_counted_as_pages():
    first, second = Image.fromarray(COLOUR), Image.fromarray(COLOUR[::2, ::2])
    second.encoderinfo = {"tiffinfo": {254: 1}}
    content = encoded(first, "TIFF", save_all=True, append_images=[second])
    assert np.array_equal(np.asarray(load_image(content)), COLOUR)


@pytest.mark.parametrize(
    "name",
    [
        "http://127.0.0.1:9/a.jpg",
        "https://x/a.jpg",
        "s3://b/a.jpg",
        "file:///a.jpg",
        "HTTP:/a.jpg",
        "a+b.c://x",
    ],
)
def test_an_address_is_refused_without_using_the_network(name, monkeypatch):
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("went to the network"))
    for read in (load_image, inspect_image, check_eight_bits):
        with pytest.raises(
            BrokenImage, match=r"is an address: .*Download it|is an address.*\n.*Download it"
        ):
            read(name)


def test_an_address_after_the_folder_of_images_is_recognised(tmp_path):
    with pytest.raises(BrokenImage, match=r"not found: .*\n.*never fetched"):
        load_image(f"{tmp_path}/http://host/a.jpg")
    with pytest.raises(BrokenImage, match=r"(?s)not found: C:.*annotation file"):
        load_image("C:/images/a.jpg")


@pytest.mark.parametrize("name", [None, 3, 0, ["a.jpg"], b"", {}])
def test_a_file_name_that_is_not_a_path_is_refused(name):
    with pytest.raises(BrokenImage):
        load_image(name)


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "device", "folder", "socket"])
def test_only_regular_files_are_opened_and_nothing_hangs(kind, tmp_path, monkeypatch):
    path = tmp_path / "image.jpg"
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("image.jpg")
    else:
        os.mkfifo(tmp_path / "pipe")
        path = tmp_path / "pipe" if kind == "pipe" else path
        if kind != "pipe":
            path.symlink_to(tmp_path / "pipe")
    with pytest.raises(BrokenImage, match=f"cannot be opened: {path}"):
        load_image(path)


@pytest.mark.parametrize("name", ["a\0b.jpg", "x" * 5000, "loop.jpg"])
def test_a_name_that_cannot_be_opened_is_an_error(name, tmp_path):
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    with pytest.raises(BrokenImage):
        load_image(str(tmp_path / name))


@pytest.mark.parametrize("content", [None, b"", b"<html>", b"\x89PNG\r\n\x1a\n"])
def test_a_name_with_a_line_feed_stays_on_the_first_line(content, tmp_path):
    path = tmp_path / "a\nb.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BrokenImage) as caught:
        load_image(path)
    first, _, advice = str(caught.value).partition("\n")
    assert (
        first.endswith("a\\nb.png")
        and "backslashes" not in advice
        and not advice.startswith("b.png")
    )


def test_the_error_for_a_missing_name_with_backslashes_mentions_them():
    with pytest.raises(BrokenImage, match=r'not found: images\\a.jpg\n.*Write "/"') as error:
        load_image("images\\a.jpg")
    assert error.value.reason == "image file is missing"


def test_postscript_starts_no_program(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("started a program"))
    for suffix in ("jpg", "png", "eps", "ps"):
        (tmp_path / f"a.{suffix}").write_bytes(REFUSED["postscript"][1])
        with pytest.raises(BrokenImage, match=r"PostScript\. Supported formats: JPEG, PNG, WebP"):
            load_image(tmp_path / f"a.{suffix}")


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    content = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )
    (tmp_path / "bomb.png").write_bytes(
        content + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    )
    with pytest.raises(BrokenImage, match=r"too large: .*bomb\.png\n(.*\n)*Cut it into tiles"):
        load_image(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    "kind", ["rgb jpeg", "rgb png", "rgb tiff", "rgb webp", "16-bit png", "palette gif"]
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_of_any_format_is_refused(kind, share):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    formats = {"jpeg": "JPEG", "png": "PNG", "tiff": "TIFF", "webp": "WEBP", "gif": "GIF"}
    content = encoded(image, formats[kind.split()[-1]])
    with pytest.raises(BrokenImage, match="cannot be read: cut"):
        load_image(content[: int(share * len(content))], name="cut")


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_exif_orientation_is_that_of_detectron2(turn, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    path = tmp_path / "image.png"
    Image.fromarray(COLOUR).save(path, exif=exif)
    assert np.array_equal(np.asarray(load_image(path)), detectron2_read_image(str(path), "RGB"))
    assert stored_orientation(path) == turn and inspect_image(path) == (
        GREY.shape if turn < 5 else GREY.shape[::-1]
    )


def test_damaged_exif_leaves_the_pixels_as_they_are(tmp_path):
    content = encoded(Image.fromarray(COLOUR), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(np.asarray(load_image(content)), COLOUR)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SAMPLES)
def test_damaged_bytes_raise_only_broken_image(kind):
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    for _ in range(12):
        content = bytearray(SAMPLES[kind].content)
        for place in rng.integers(0, len(content), rng.integers(1, 6)):
            content[place] = rng.integers(0, 256)
        for read in (load_image, inspect_image):
            try:
                read(bytes(content), SAMPLES[kind].max_value)
            except BrokenImage as error:
                assert len(str(error).splitlines()) <= 6
