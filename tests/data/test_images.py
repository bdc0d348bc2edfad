import io

import numpy as np
import pytest
import torch
from detectron2.data.detection_utils import read_image as detectron2_read_image
from PIL import Image
from torchvision.transforms.v2.functional import center_crop

from tests.image_samples import samples
from virtex_det import get_cfg
from virtex_det.data import DetectionMapper, read_picture
from virtex_det.data.images import Span, image_tensor, read_image
from virtex_det.data.mappers.pretraining import PretrainingMapper
from virtex_det.errors import UserError
from virtex_det.image_files import BrokenImage


@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L"])
def test_pixels_are_those_that_detectron2_reads(example, image_format):
    expected = detectron2_read_image(example["file_name"], image_format)
    ours = image_tensor(read_image(example, image_format), image_format)
    assert np.array_equal(ours.permute(1, 2, 0), expected) and ours.is_contiguous()


@pytest.mark.parametrize("planar", [True, False])
@pytest.mark.parametrize("mirror", [(1,), (2,), (1, 2)])
def test_mirrored_views_are_copied_as_by_numpy(planar, mirror):
    memory = np.random.default_rng(0).integers(
        0, 256, (3, 5, 7) if planar else (5, 7, 3), dtype=np.uint8
    )
    pixels = memory.transpose(1, 2, 0) if planar else memory
    view = np.flip(pixels, [axis - 1 for axis in mirror])
    assert torch.equal(
        image_tensor(view, "BGR"), torch.from_numpy(view.transpose(2, 0, 1)[::-1].copy())
    )


def test_an_image_with_exif_orientation_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image({"file_name": str(tmp_path / "turned.jpg")}, "BGR").shape == (8, 4, 3)


def test_a_missing_height_and_width_are_filled_in(photo):
    example = {"file_name": str(photo)}
    read_image(example, "RGB")
    assert (example["height"], example["width"]) == (40, 60)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_image_is_an_error_that_names_the_file(tmp_path, photo, suffix):
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    Image.open(photo).save(whole)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"cannot be read: .*cut\.{suffix}"):
        read_image({"file_name": str(cut)}, "RGB")


def test_the_error_for_a_file_that_is_not_an_image_names_it(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    with pytest.raises(UserError, match=r"page\.jpg"):
        read_image({"file_name": str(tmp_path / "page.jpg")}, "RGB")


def test_a_missing_image_is_an_error_that_says_what_to_check():
    with pytest.raises(UserError, match="not found: absent.jpg\n.*DETECTRON2_DATASETS"):
        read_image({"file_name": "absent.jpg"}, "RGB")


def test_another_size_than_annotated_is_an_error_that_names_the_file(example):
    with pytest.raises(UserError, match=r"(?s)photo\.jpg.*\(60, 40\).*\(61, 40\)"):
        read_image({**example, "width": 61}, "RGB")


def test_an_image_in_memory_or_within_a_file_is_read_like_one_on_disk(photo, tmp_path):
    content = photo.read_bytes()
    (tmp_path / "many.tar").write_bytes(b"before" + content + b"after")
    expected = read_image({"file_name": str(photo)}, "RGB")
    for encoded in (content, Span(str(tmp_path / "many.tar"), 6, len(content))):
        example = {"file_name": "many.tar/photo.jpg", "encoded_image": encoded}
        assert np.array_equal(read_image(example, "RGB"), expected) and example["width"] == 60


def test_an_encoded_image_with_exif_orientation_is_turned_upright():
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(file, "JPEG", exif=exif)
    assert read_image({"file_name": "a.jpg", "encoded_image": file.getvalue()}, "RGB").shape == (
        8,
        4,
        3,
    )


def test_damage_of_any_kind_is_a_broken_image_that_names_the_file(photo):
    content = photo.read_bytes()
    rng = np.random.default_rng(0)
    broken = [b"", content[:100], content[: len(content) // 2], rng.bytes(500)]
    for encoded in broken:
        with pytest.raises(BrokenImage, match=r"cannot be read: s\.tar/a\.jpg") as error:
            read_image({"file_name": "s.tar/a.jpg", "encoded_image": encoded}, "RGB")
        assert error.value.reason == "image cannot be read"


def test_a_broken_image_says_its_reason_in_few_words(example):
    with pytest.raises(BrokenImage) as missing:
        read_image({"file_name": "absent.jpg"}, "RGB")
    with pytest.raises(BrokenImage) as other_size:
        read_image({**example, "width": 61}, "RGB")
    assert (missing.value.reason, other_size.value.reason) == (
        "image file is missing",
        "not of the annotated size",
    )


SAMPLES = samples()


@pytest.mark.parametrize("kind", SAMPLES)
def test_training_evaluation_captions_and_prediction_read_the_same_pixels(kind, tmp_path):
    sample = SAMPLES[kind]
    path = tmp_path / f"image.{sample.suffix}"
    path.write_bytes(sample.content)
    height, width = sample.pixels.shape[:2]
    example = {
        "file_name": str(path),
        "image_id": 0,
        "height": height,
        "width": width,
        "annotations": [],
    }
    cfg = get_cfg()
    short = min(height, width)
    cfg.merge_from_list(
        ["INPUT.MAX_VALUE", sample.max_value, "INPUT.RANDOM_FLIP", "none", "INPUT.FORMAT", "BGR"]
    )
    cfg.merge_from_list(["INPUT.MIN_SIZE_TRAIN", (short,), "INPUT.MIN_SIZE_TEST", short])
    cfg.INPUT.CAPTION.CROP_SIZE = short
    expected = torch.from_numpy(sample.pixels.transpose(2, 0, 1)[::-1].astype(int))
    read = {
        "training": DetectionMapper(cfg, True)(dict(example))["image"],
        "evaluation": DetectionMapper(cfg, False)(dict(example))["image"],
        "prediction": torch.from_numpy(read_picture(path, cfg)).permute(2, 0, 1),
    }
    for name, image in read.items():
        assert (image.int() - expected).abs().max() <= sample.tolerance, name
    with_span = {
        "file_name": "a.tar/image",
        "encoded_image": Span(str(path), 0, len(sample.content)),
        "image_id": 0,
    }
    for source in (example, with_span):
        pixels = read_image(dict(source), "RGB", sample.max_value)
        assert np.array_equal(pixels[:, :, ::-1], read_picture(path, cfg))
        captioned, _ = PretrainingMapper(cfg, is_train=False).map_image(source)
        assert torch.equal(captioned["image"], center_crop(read["evaluation"], [short, short]))


@pytest.mark.parametrize("image_format", ["L", "YUV-BT.601", "HSV", "CMYK", "YCbCr", "LAB", "RGBA"])
def test_other_formats_of_the_config_are_those_of_detectron2(example, image_format):
    expected = detectron2_read_image(example["file_name"], image_format)
    pixels = read_image(dict(example), image_format)
    assert np.array_equal(pixels, expected) and image_tensor(pixels, image_format).shape[1:] == (
        40,
        60,
    )


def test_an_annotation_of_the_stored_size_says_what_exif_has_to_do_with_it(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (4, 8)).save(tmp_path / "plain.jpg")
    stored = {"width": 8, "height": 4}
    with pytest.raises(
        UserError,
        match=r"(?s)turned\.jpg has the size \(4, 8\).*says \(8, 4\).*EXIF orientation \(6\)",
    ):
        read_image({"file_name": str(tmp_path / "turned.jpg"), **stored}, "RGB")
    with pytest.raises(UserError, match="(?s)plain.*swapped") as error:
        read_image({"file_name": str(tmp_path / "plain.jpg"), **stored}, "RGB")
    assert "EXIF" not in str(error.value)
    with pytest.raises(UserError, match="another version") as error:
        read_image({"file_name": str(tmp_path / "turned.jpg"), "width": 9, "height": 4}, "RGB")
    assert "EXIF" not in str(error.value)


@pytest.mark.parametrize("known", [{"width": 60}, {"height": 40}, {"width": 60.0, "height": 40.0}])
def test_half_a_size_and_a_whole_number_as_a_float_will_do(photo, known):
    example = {"file_name": str(photo), **known}
    read_image(example, "RGB")
    assert (example["height"], example["width"]) == (40, 60)
