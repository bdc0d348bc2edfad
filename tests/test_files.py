import os
from pathlib import Path

import pytest

from virtex_det.errors import UserError
from virtex_det.files import as_name, check_output, check_output_folder
from virtex_det.utils import write_atomically


@pytest.mark.parametrize(
    "name", ["/dev/stdout", "/dev/stderr", "/dev/new", "/dev/fd/1", "/proc/new", "/dev/../dev/x"]
)
def test_nothing_in_the_folders_of_the_system_is_replaced(name, tmp_path):
    """If standard output is a file, /dev/stdout leads to a regular file, but the link must stay."""
    before = sorted(os.listdir("/dev"))  # noqa: PTH208
    with pytest.raises(UserError, match="Name a regular file"):
        write_atomically(name, "x")
    assert sorted(os.listdir("/dev")) == before and Path("/dev/stdout").is_symlink()  # noqa: PTH208


@pytest.mark.parametrize("kind", ["its name", "another road", "a link", "a hard link"])
def test_an_input_is_not_overwritten(kind, tmp_path):
    own = tmp_path / "results.json"
    own.touch()
    other = tmp_path / "other.json"
    if kind == "a link":
        other.symlink_to(own)
    elif kind == "a hard link":
        other.hardlink_to(own)
    output = {"its name": own, "another road": tmp_path / "x/../results.json"}.get(kind, other)
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="is an input, which would be overwritten"):
        check_output(output, "coco_2017_val", None, own)


def test_any_other_file_may_be_overwritten(tmp_path):
    (tmp_path / "a").touch()
    for output in (None, "", tmp_path / "a", tmp_path / "new/b"):
        check_output(output, tmp_path / "c", "", None, "virtex://a", "x" * 5000)
    with pytest.raises(UserError, match="cannot be written: File name too long"):
        check_output("x" * 5000)


def in_the_way(folder: Path, kind: str) -> Path:
    """Return the name of a folder that cannot be made or written to."""
    if kind == "a broken link":
        (folder / "name").symlink_to(folder / "gone")
    else:
        (folder / "name").touch()
    names = {
        "below a file": folder / "name/new/one",
        "of the system": Path("/proc/new/one"),
        "too long": folder / ("x" * 300),
        "no name": folder / "a\0b",
    }
    return names.get(kind, folder / "name")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("a file", "name is a file, not a folder"),
        ("below a file", "name is a file, not a folder"),
        ("a broken link", "name is a broken link, not a folder"),
        ("of the system", "/proc/new/one cannot be written: No such file"),
        ("too long", "cannot be written: File name too long"),
        ("no name", "cannot be written: embedded null byte"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(kind, message, tmp_path):
    folder = in_the_way(tmp_path, kind)
    with pytest.raises(UserError, match=message):
        check_output_folder(folder)
    if kind in ("a file", "below a file", "a broken link"):
        with pytest.raises(UserError, match=message):
            check_output(folder / "page.html")


def test_a_folder_that_can_be_written_stays_as_it_was(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "link", tmp_path / "new/one"):
        check_output_folder(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


@pytest.mark.parametrize("value", [None, 3, b"x", ["x"]])
def test_a_value_that_is_not_a_name_is_an_error(value):
    with pytest.raises(UserError, match="The file is given as a .*; expected its name"):
        as_name(value, "The file")
