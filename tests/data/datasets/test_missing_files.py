import logging

import pytest

from virtex_det.data.datasets import find_missing, leave_out_missing
from virtex_det.data.datasets.missing_files import list_missing
from virtex_det.errors import UserError


@pytest.fixture
def dicts(tmp_path):
    """Ten images in two folders, of which 2.jpg and 7.jpg are not there."""
    dicts = []
    for number in range(10):
        path = tmp_path / str(number % 2) / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        if number not in (2, 7):
            path.touch()
        dicts.append({"file_name": str(path), "image_id": number})
    return dicts


def test_missing_files_are_left_out_counted_and_named(dicts, caplog):
    with caplog.at_level(logging.WARNING):
        found = leave_out_missing(dicts, "my_set", 0.2)
    assert [entry["image_id"] for entry in found] == [0, 1, 3, 4, 5, 6, 8, 9]
    assert (
        "my_set: 2 of 10 images (20.0%)" in caplog.text
        and "/0/2.jpg" in caplog.text
        and "/1/7.jpg" in caplog.text
    )


def test_more_than_the_share_is_an_error_that_names_files_and_key(dicts):
    with pytest.raises(
        UserError, match=r"(?s)2 of 10 .*2\.jpg.*At most 19.0%.*DATASETS.MAX_MISSING_FILES"
    ):
        leave_out_missing(dicts, "my_set", 0.19)


def test_a_missing_folder_is_all_its_files_missing(dicts):
    dicts += [{"file_name": f"/nowhere/{number}.jpg", "image_id": number} for number in range(100)]
    with pytest.raises(UserError, match=r"(?s)102 of 110 .*\.\.\."):
        leave_out_missing(dicts, "my_set", 0.5)


def test_an_image_without_a_file_name_is_left_to_who_reads_it(dicts):
    del dicts[0]["file_name"]
    assert dicts[0] in leave_out_missing(dicts, "my_set", 0.5)


def test_a_set_that_is_whole_is_returned_as_it_is(dicts, caplog):
    whole = [entry for entry in dicts if entry["image_id"] not in (2, 7)]
    assert leave_out_missing(whole, "my_set", 0.0) is whole and not caplog.text


def test_each_folder_is_listed_once_and_no_file_is_asked_for(dicts, monkeypatch):
    import os

    scanned, scandir = [], os.scandir
    monkeypatch.setattr(
        os, "scandir", lambda folder: scanned.append(str(folder)) or scandir(folder)
    )
    find_missing(dicts)
    assert len(scanned) == len(set(scanned)) == 2


def test_addresses_and_images_in_tar_files_are_not_looked_for():
    remote = {"file_name": "s3://bucket/a.jpg"}
    in_tar = {"file_name": "/data/0.tar/a.jpg", "encoded_image": b""}
    assert leave_out_missing([remote, in_tar], "my_set", 0.0) == [remote, in_tar]


@pytest.mark.parametrize(
    "name",
    [
        "loop.jpg",
        "loop/a.jpg",
        f"{'x' * 300}/a.jpg",
        f"{'x' * 300}.jpg",
        "a\0b/c.jpg",
        "a\ud800/b.jpg",
        "0.jpg/a",
    ],
)
def test_a_name_that_no_file_can_have_is_a_missing_file(name, dicts, tmp_path):
    folder = tmp_path / "0"
    (folder / "loop").symlink_to("loop")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    assert len(find_missing([*dicts, {"file_name": f"{folder}/{name}", "image_id": 10}])) == 3


@pytest.mark.parametrize(
    "there, name",
    [
        ("IMG.JPG", "img.jpg"),
        ("a.jpeg", "a.jpg"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
        ("b.jpg", "b.jpg "),
        ("c.png", "c.jpg"),
    ],
)
def test_a_file_of_a_similar_name_is_named(there, name, tmp_path):
    (tmp_path / there).touch()
    (tmp_path / "other.jpg").touch()
    assert list_missing({f"{tmp_path}/{name}"}) == f"  {tmp_path}/{name} (there is {there!r})"
    assert list_missing({f"{tmp_path}/d.jpg"}) == f"  {tmp_path}/d.jpg"
