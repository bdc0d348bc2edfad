"""The folder of drawn pictures: complete, without those of an earlier call; other files stay."""

import pytest
from PIL import Image

from virtex_det.errors import UserError
from virtex_det.inference.picture_folder import drawing_into

GREY = Image.new("RGB", (8, 8), "grey")


def draw(folder, *names, inputs=()):
    with drawing_into(folder, inputs) as save:
        for name in names:
            save(name, GREY)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_pictures_of_an_earlier_call_are_gone_and_others_stay(suffix, tmp_path):
    draw(tmp_path, f"1{suffix}", f"2{suffix}", f"3{suffix}")
    GREY.save(tmp_path / f"my_own{suffix}")
    (tmp_path / f"no_picture{suffix}").write_text("words")
    draw(tmp_path, f"2{suffix}")
    assert names_in(tmp_path) == [f"2{suffix}", f"my_own{suffix}", f"no_picture{suffix}"]


def test_a_call_that_fails_leaves_the_earlier_pictures(tmp_path):
    draw(tmp_path / "pictures", "1.jpg")
    with pytest.raises(ZeroDivisionError), drawing_into(tmp_path / "pictures") as save:
        save("2.jpg", GREY)
        raise ZeroDivisionError
    assert names_in(tmp_path / "pictures") == ["1.jpg"]


def test_a_call_that_draws_nothing_makes_no_folder(tmp_path):
    draw(tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()


def test_a_drawn_picture_that_is_read_again_is_not_deleted(tmp_path):
    draw(tmp_path, "1.jpg")
    draw(tmp_path, "1_1.jpg", inputs=[tmp_path / "1.jpg"])
    assert names_in(tmp_path) == ["1.jpg", "1_1.jpg"]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "pictures").touch()
    with pytest.raises(UserError, match=r"pictures is not a folder.*Remove it, or name another"):
        draw(tmp_path / "pictures", "1.jpg")
