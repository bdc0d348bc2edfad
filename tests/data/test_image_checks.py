import numpy as np
import pytest
from PIL import Image

from virtex_det.data.image_checks import check_images, check_some
from virtex_det.errors import UserError


@pytest.fixture
def make_dicts(tmp_path):
    """Writes so many images of 8 x 4 pixels and describes them; ``changes`` gives by number
    another image.
    """

    def make(count, changes=None):
        dicts = []
        for number in range(count):
            image = (changes or {}).get(number, Image.new("RGB", (8, 4)))
            path = tmp_path / f"{number}.tif"
            path.write_bytes(image) if isinstance(image, bytes) else image.save(path)
            dicts.append({"file_name": str(path), "image_id": number, "width": 8, "height": 4})
        return dicts

    return make


FLOATS = Image.fromarray(np.zeros((4, 8), np.float32))


def test_valid_headers_are_accepted_and_the_dicts_unchanged(make_dicts):
    dicts = [*make_dicts(5, {1: FLOATS}), {"encoded_image": b"", "file_name": "a.tar/b"}]
    del dicts[0]["width"]
    before = [dict(entry) for entry in dicts]
    check_images("val", dicts, max_value=1.0)
    assert dicts == before


def test_one_error_has_all_faults_that_headers_show(make_dicts):
    dicts = make_dicts(6, {1: FLOATS, 2: FLOATS, 3: b"%!PS", 4: Image.new("RGB", (4, 8))})
    with pytest.raises(UserError, match=r"data set val: 4 of 6 images") as error:
        check_images("val", dicts, 0.0)
    for part in (
        r"1.tif (and 1 more)",
        "INPUT.MAX_VALUE",
        "3.tif",
        "PostScript",
        "4.tif has the size (4, 8)",
    ):
        assert part in str(error.value)


def test_a_training_set_without_a_readable_image_is_refused(make_dicts):
    dicts = make_dicts(20, dict.fromkeys(range(20), FLOATS))
    with pytest.raises(
        UserError,
        match=r"(?s)train: 20 of 20 training images were checked, and 20 cannot.*INPUT\.MAX_VALUE",
    ):
        check_some("train", dicts, 0.0)
    check_some("train", dicts, 1.0)


def test_many_images_of_another_size_than_annotated_are_an_error_before_training(make_dicts):
    few = make_dicts(20, {3: Image.new("RGB", (4, 8))})
    check_some("train", few, 0.0)
    many = make_dicts(20, dict.fromkeys((1, 5, 9), Image.new("RGB", (4, 8))) | {2: b"broken"})
    with pytest.raises(
        UserError,
        match=r"(?s)20 training images were checked, and 4 cannot.*1\.tif has the size.*2 more",
    ):
        check_some("train", many, 0.0)


def test_a_broken_image_among_valid_ones_does_not_prevent_training(make_dicts):
    check_some("train", make_dicts(3, {0: b"broken"}), 0.0)
    check_some("train", [], 0.0)


CUT = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP", "bmp": "BMP"}


@pytest.mark.parametrize("suffix", CUT)
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_a_file_that_lacks_its_end_is_found_without_reading_the_others_whole(
    suffix, share, tmp_path, monkeypatch
):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    dicts = []
    for number in range(3):
        image.save(path := tmp_path / f"{number}.{suffix}", CUT[suffix])
        dicts.append({"file_name": str(path), "image_id": number, "width": 60, "height": 40})
    check_images("val", dicts, 0.0)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=rf"(?s)1 of 3 images.*2\.{suffix}"):
        check_images("val", dicts, 0.0)


def test_bytes_after_the_end_are_not_damage(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "0.jpg")
    with (tmp_path / "0.jpg").open("ab") as file:
        file.write(bytes(1000))
    check_images("val", [{"file_name": str(tmp_path / "0.jpg"), "width": 60, "height": 40}], 0.0)


def test_damage_within_a_file_is_found_where_images_are_read_whole(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(
        tmp_path / "0.png"
    )
    content = bytearray((tmp_path / "0.png").read_bytes())
    content[200:260] = bytes(60)
    (tmp_path / "0.png").write_bytes(content)
    dicts = [{"file_name": str(tmp_path / "0.png"), "width": 60, "height": 40}]
    check_images("val", dicts, 0.0)
    with pytest.raises(UserError, match="0.png"):
        check_images("val", dicts, 0.0, whole=1)


def test_an_orientation_that_stands_behind_the_pixels_is_heeded(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "0.png", exif=exif)
    content = (tmp_path / "0.png").read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    last = content.index(b"IEND") - 4
    (tmp_path / "0.png").write_bytes(
        content[:start] + content[end:last] + content[start:end] + content[last:]
    )
    check_images("val", [{"file_name": str(tmp_path / "0.png"), "width": 40, "height": 60}], 0.0)
