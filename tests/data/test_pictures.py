"""Pictures that users hand over: what is found, what is read, and what is said of the rest."""

import numpy as np
import pytest
import torch
from PIL import Image

from virtex_det.data.images import read_image
from virtex_det.data.pictures import (
    check_array,
    find_images,
    in_one_line,
    is_one_picture,
    list_pictures,
    picture_name,
    read_ahead,
    read_rgb,
    usable_pictures,
)
from virtex_det.errors import UserError
from virtex_det.image_files import BrokenImage

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def picture(path, size=(40, 30), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path):
    for name in ("b.jpg", "a.PNG", "deep/er/c.webp"):
        picture(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    return tmp_path / "photos"


def test_folders_give_all_images_below_them_and_each_image_comes_once(photos):
    found = find_images([str(photos / "b.jpg"), str(photos)])
    assert [path.name for path in found] == ["b.jpg", "a.PNG", "c.webp"]


def test_a_pattern_that_the_shell_left_is_resolved(photos):
    assert [path.name for path in find_images([f"{photos}/*.jpg"])] == ["b.jpg"]
    assert [path.name for path in find_images([f"{photos}/**/*.webp"])] == ["c.webp"]


def test_a_pattern_finds_no_debris_of_other_systems(photos):
    picture(photos / "@eaDir" / "b.jpg")
    assert [path.name for path in find_images([f"{photos}/**/*.jpg"])] == ["b.jpg"]


def test_a_file_with_the_signs_of_a_pattern_in_its_name_is_that_file(photos):
    path = picture(photos / "odd" / "[a].jpg")
    assert find_images([str(path)]) == [path]


def test_a_file_that_is_named_is_tried_whatever_it_is(photos):
    assert find_images([str(photos / "notes.txt")]) == [photos / "notes.txt"]


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "only.txt").write_text("text")
    with pytest.raises(UserError, match=r"has no image.*\.jpg"):
        find_images([str(tmp_path)])


@pytest.mark.parametrize("target", ["nowhere.jpg", "link.jpg"])
def test_a_link_to_nothing_is_an_error(target, tmp_path):
    (tmp_path / "link.jpg").symlink_to(target)
    with pytest.raises(UserError, match="link.jpg is a broken link"):
        find_images([str(tmp_path / "link.jpg")])
    with pytest.raises(UserError, match="link.jpg is a broken link"):
        find_images([str(tmp_path / "l*.jpg")])


@pytest.mark.parametrize("name", ["nowhere.jpg", "*.jpg"])
def test_a_name_of_nothing_is_an_error(name, tmp_path):
    with pytest.raises(UserError, match="no image, folder or pattern"):
        find_images([str(tmp_path / name)])


def test_hidden_files_and_circles_of_links_are_no_images_to_caption(tmp_path):
    for name in (".ipynb_checkpoints/a.png", "__MACOSX/a.png", "._a.png", "b/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/circle").symlink_to(tmp_path)
    assert find_images([str(tmp_path)]) == [tmp_path / "b/a.png"]


# --- one picture


def test_a_file_a_pil_image_and_an_array_give_the_same_pixels(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    for given in (
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        Image.open(tmp_path / "a.png"),
        PIXELS,
    ):
        assert np.array_equal(read_rgb(given), PIXELS)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "LA"])
def test_a_pil_image_of_any_mode_is_read_as_its_file_is(mode, tmp_path):
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / "a.tiff")
    from_file = read_rgb(tmp_path / "a.tiff")
    assert np.array_equal(from_file, read_image({"file_name": str(tmp_path / "a.tiff")}, "RGB"))
    assert np.array_equal(read_rgb(Image.open(tmp_path / "a.tiff")), from_file)


def test_exif_turns_a_pil_image_as_it_turns_its_file(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    assert (
        read_rgb(Image.open(tmp_path / "a.png")).shape
        == read_rgb(tmp_path / "a.png").shape
        == (9, 6, 3)
    )


@pytest.mark.parametrize("kind", ["file", "pil"])
def test_deep_pixels_have_the_rule_of_training(kind, tmp_path):
    Image.fromarray(np.full((4, 4), 2000, np.uint16)).save(tmp_path / "a.png")
    given = tmp_path / "a.png" if kind == "file" else Image.open(tmp_path / "a.png")
    with pytest.raises(BrokenImage, match="INPUT.MAX_VALUE"):
        read_rgb(given)
    assert read_rgb(given, 4000.0).max() == 128


def test_a_pil_image_that_is_cut_short_is_broken(tmp_path):
    Image.fromarray(RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:2000])
    with pytest.raises(BrokenImage, match="PIL image cannot be read"):
        read_rgb(Image.open(tmp_path / "a.jpg"))


def test_an_array_that_is_a_mirrored_view_is_what_it_shows():
    assert np.array_equal(read_rgb(PIXELS[:, :, ::-1]), PIXELS[:, :, ::-1])


@pytest.mark.parametrize(
    ("pixels", "found", "advice"),
    [
        (
            PIXELS / 255,
            r"float64 with the shape \(6, 9, 3\)",
            r"white is 1.*\(255 \* picture\).round",
        ),
        (
            PIXELS.astype(np.int64),
            r"int64 with the shape \(6, 9, 3\)",
            r"\(picture\).round\(\).astype",
        ),
        (PIXELS.transpose(2, 0, 1), r"uint8 with the shape \(3, 6, 9\)", r"transpose\(1, 2, 0\)"),
        (PIXELS[:, :, 0], r"uint8 with the shape \(6, 9\)", r"Image.fromarray"),
        (PIXELS[:, :, :1], r"uint8 with the shape \(6, 9, 1\)", "RGB order"),
        (np.dstack([PIXELS, PIXELS])[:, :, :4], r"\(6, 9, 4\)", r"picture\[:, :, :3\]"),
        (PIXELS[None], r"\(1, 6, 9, 3\)", r"list\(pictures\)"),
        (PIXELS[:0], r"\(0, 9, 3\)", "height"),
        (np.full((2, 2, 3), np.nan), "float64", r"\(height, width, 3\)"),
        (np.array("a.jpg"), r"shape \(\)", r"\(height, width, 3\)"),
        (np.full((2, 2, 3), None), "object", r"\(height, width, 3\)"),
    ],
)
def test_another_array_is_told_what_it_is_and_how_it_becomes_a_picture(pixels, found, advice):
    with pytest.raises(UserError, match=found) as error:
        check_array(pixels)
    assert "BGR" in str(error.value)
    with pytest.raises(UserError, match=f"(?s){advice}"):
        read_rgb(pixels)


@pytest.mark.parametrize(
    ("given", "name"), [(torch.zeros(3, 4, 4), "torch.Tensor"), (None, "NoneType"), (7, "int")]
)
def test_what_is_no_picture_is_named_by_its_type(given, name):
    for read in (read_rgb, list_pictures):
        with pytest.raises(UserError, match=f"{name}; expected the path"):
            read(given)


def test_an_empty_name_is_not_taken_for_this_folder(photos, monkeypatch):
    monkeypatch.chdir(photos)
    with pytest.raises(UserError, match="name of the picture is empty"):
        read_rgb("")
    with pytest.raises(UserError, match="1 of 2 pictures cannot be used"):
        usable_pictures(list_pictures([photos / "a.PNG", ""]), 0.0, skip_broken=False)
    assert is_one_picture("")
    with pytest.raises(UserError, match="A name of an image is empty"):
        find_images([""])


@pytest.mark.parametrize("name", ["\ud800.png", "a\0.png", "x" * 5000])
def test_a_name_that_no_file_can_have_is_one_screen(name):
    with pytest.raises(UserError):
        read_rgb(name)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_a_pil_image_without_pixels_is_refused(size):
    with pytest.raises(UserError, match="has no pixels: it is"):
        read_rgb(Image.new("RGB", size))


def test_a_missing_file_is_no_matter_of_annotations(tmp_path):
    with pytest.raises(BrokenImage, match=r"There is no picture .*gone\.jpg") as error:
        read_rgb(tmp_path / "gone.jpg")
    assert "annotation" not in str(error.value)


def test_an_address_is_told_to_be_one():
    with pytest.raises(BrokenImage, match="is an address"):
        read_rgb("https://example.com/a.jpg")


# --- lists and folders


def test_a_list_may_mix_files_folders_images_and_arrays(photos):
    given = [photos / "b.jpg", PIXELS, Image.fromarray(PIXELS), str(photos / "deep")]
    found = list_pictures(given)
    assert [picture_name(each) for each in found] == [
        str(photos / "b.jpg"),
        "",
        "",
        str(photos / "deep/er/c.webp"),
    ]
    assert (
        not is_one_picture(given)
        and not is_one_picture(photos)
        and is_one_picture(photos / "b.jpg")
    )
    assert list_pictures([]) == []


def test_the_wrong_entry_of_a_list_is_named_by_its_place(photos):
    with pytest.raises(UserError, match=r"(?s)Entry 1 of the list.*float64"):
        list_pictures([photos / "b.jpg", PIXELS / 255])
    with pytest.raises(UserError, match="Entry 0 of the list of pictures: It is a list; expected"):
        list_pictures([[PIXELS]])


def test_a_folder_gives_its_images_and_none_of_its_debris(photos):
    for name in (".DS_Store", "._b.jpg", "Thumbs.db", ".thumbs/x.jpg"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_bytes(b"debris")
    assert [path.name for path in list_pictures(photos)] == ["a.PNG", "b.jpg", "c.webp"]


def test_broken_files_are_all_known_before_any_work(photos, tmp_path):
    whole = (photos / "b.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "text.png").write_text("text")
    given = [*list_pictures(photos), PIXELS, tmp_path / "gone.jpg"]
    with pytest.raises(UserError) as error:
        usable_pictures(given, 0.0, skip_broken=False)
    lines = str(error.value).splitlines()
    assert lines[0] == "3 of 7 pictures cannot be used; nothing was done:"
    assert [line.split(": ")[0].rpartition("/")[2] for line in lines[1:4]] == [
        "cut.jpg",
        "text.png",
        "gone.jpg",
    ]
    assert (
        "text.png: not an image" in lines[2]
        and "Check the path" in lines[3]
        and "skip_broken" in lines[4]
    )


def test_skipped_files_are_logged_by_name(photos, caplog):
    (photos / "text.png").write_text("text")
    kept = usable_pictures(list_pictures(photos), 0.0, skip_broken=True)
    assert len(kept) == 3
    assert [record.getMessage() for record in caplog.records] == [
        f"left out: {photos / 'text.png'}: not an image"
    ]


def test_many_broken_files_stay_on_one_screen(tmp_path):
    given = [tmp_path / f"{number}.jpg" for number in range(100)]
    with pytest.raises(UserError, match="100 of 100 .*\n(.*\n){5}  and 95 more\n") as error:
        usable_pictures(given, 0.0, skip_broken=False)
    assert len(str(error.value).splitlines()) == 8


def test_reading_ahead_keeps_the_order_and_hands_over_what_is_broken(photos):
    (photos / "text.png").write_text("text")
    given = [photos / "b.jpg", photos / "text.png", *[PIXELS] * 40]
    found = list(read_ahead(given, read_rgb))
    assert [each is original for (each, _), original in zip(found, given, strict=True)] == [
        True
    ] * 42
    assert isinstance(found[1][1], BrokenImage) and in_one_line(*found[1]) == (
        f"{photos / 'text.png'}: not an image"
    )
    assert all(np.array_equal(pixels, PIXELS) for _, pixels in found[2:])


def test_reading_ahead_reads_no_more_than_is_soon_used():
    read = []
    waiting = read_ahead(iter([PIXELS] * 1000), lambda pixels: read.append(1))
    next(waiting)
    assert len(read) <= 8
