import os
from pathlib import Path

import pytest

from virtex_det.errors import UserError
from virtex_det.files import as_name, check_output
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


@pytest.mark.parametrize("value", [None, 3, b"x", ["x"]])
def test_a_value_that_is_not_a_name_is_an_error(value):
    with pytest.raises(UserError, match="The file is given as a .*; expected its name"):
        as_name(value, "The file")
