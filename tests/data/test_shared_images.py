import os
from io import BytesIO
from pathlib import Path

import pytest

from virtex_det.data import shared_images
from virtex_det.data.shared_images import find_shared_images


@pytest.fixture
def write(tmp_path):
    """Writes files of a folder by name and content, and returns their paths."""

    def write(folder: str, **contents: bytes) -> set[str]:
        (tmp_path / folder).mkdir()
        for name, content in contents.items():
            (tmp_path / folder / name).write_bytes(content)
        return {str(tmp_path / folder / name) for name in contents}

    return write


def names(shared: dict[str, str]) -> dict[str, str]:
    return {Path(ours).name: Path(theirs).name for ours, theirs in shared.items()}


def test_one_path_in_both_is_shared_without_being_read():
    assert find_shared_images({"gone.jpg", "a.jpg"}, {"gone.jpg"}) == {"gone.jpg": "gone.jpg"}


def test_copies_are_found_under_any_name(write):
    ours = write("ours", one=b"x" * 50_000, two=b"second", three=b"third")
    theirs = write("theirs", eins=b"x" * 50_000, zwei=b"secund", drei=b"third")
    assert names(find_shared_images(ours, theirs)) == {"one": "eins", "three": "drei"}
    assert names(find_shared_images(theirs, ours)) == {"eins": "one", "drei": "three"}


@pytest.mark.parametrize("place", [0, 25_000, 49_999])
def test_files_that_differ_in_one_byte_are_no_copies(place, write):
    changed = bytearray(50_000)
    changed[place] = 1
    assert not find_shared_images(write("ours", a=bytes(50_000)), write("theirs", a=bytes(changed)))


def test_links_are_followed_and_what_cannot_be_read_is_left_out(write, tmp_path):
    ours = write("ours", a=b"same")
    os.link(tmp_path / "ours/a", tmp_path / "hard")
    (tmp_path / "soft").symlink_to(tmp_path / "ours/a")
    for name in ("hard", "soft"):
        assert names(find_shared_images(ours, {str(tmp_path / name)})) == {"a": name}
    assert not find_shared_images({*ours, "a\0b"}, {str(tmp_path / "gone"), str(tmp_path)})


def test_copies_within_a_data_set_count_each(write):
    assert len(find_shared_images(write("ours", a=b"x", b=b"x"), write("theirs", c=b"x"))) == 2


def test_only_files_of_equal_size_are_read(write, monkeypatch):
    read = []
    monkeypatch.setattr(
        shared_images,
        "open_regular",
        lambda file: read.append(file) or BytesIO(Path(file).read_bytes()),
    )
    ours = write("ours", a=b"1", b=b"22", c=b"333")
    find_shared_images(ours, write("theirs", a=b"xx", b=b"yyyy"))
    assert {"/".join(Path(file).parts[-2:]) for file in read} == {"ours/b", "theirs/a"}


def test_of_many_files_of_equal_sizes_a_part_is_read(write, monkeypatch):
    contents = {f"n{number}": b"x" * number for number in range(1, 101)}
    ours, theirs = write("ours", **contents), write("theirs", **contents)
    monkeypatch.setattr(shared_images, "_MOST", 20)
    assert len(find_shared_images(ours, theirs)) == 10
    monkeypatch.setattr(shared_images, "_MOST", 1)
    assert not find_shared_images(ours, theirs), "two files of one size are more than one"
