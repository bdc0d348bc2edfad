import os

import pytest

from virtex_det.data.datasets.folders import find_files, find_matching, is_data
from virtex_det.errors import UserError

LEFT_BEHIND = (
    ".ipynb_checkpoints/1-checkpoint.jpg",
    "._1.jpg",
    "__MACOSX/1.jpg",
    ".1.jpg",
    "a/.hidden/1.jpg",
    "a/.DS_Store",
    "@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
    "lost+found/1.jpg",
    "$RECYCLE.BIN/1.jpg",
    "a/__pycache__/1.jpg",
    "System Volume Information/1.jpg",
    "__macosx/1.jpg",
)


@pytest.fixture
def folder(tmp_path):
    for name in (*LEFT_BEHIND, "b/2.JPG", "a/1.jpg", "a.b/1.jpg", "3.txt", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(folder, suffixes=(".jpg",)):
    return [str(path.relative_to(folder)) for path in find_files(folder, suffixes)]


def test_what_systems_and_editors_leave_behind_is_not_found(folder):
    assert names(folder) == ["a/1.jpg", "a.b/1.jpg", "b/2.JPG"]
    assert not any(
        map(
            is_data,
            (".DS_Store", "Thumbs.db", "thumbs.db", "__MACOSX", "Desktop.ini", "ehthumbs.db"),
        )
    )


def test_a_folder_that_is_itself_hidden_may_be_named(folder):
    assert names(folder / ".ipynb_checkpoints") == ["1-checkpoint.jpg"]


def test_links_are_followed_and_circles_of_them_end(folder):
    (folder / "a/circle").symlink_to(folder)
    (folder / "c").symlink_to(folder / "b")
    (folder / "gone").symlink_to(folder / "nowhere")
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    assert names(folder) == ["a/1.jpg", "a.b/1.jpg", "b/2.JPG"]


def test_a_folder_that_cannot_be_read_is_refused_as_its_files_would_be_left_out(
    folder, monkeypatch
):
    scandir = os.scandir

    def denied(path):
        if str(path) == f"{folder}/b":  # permissions do not stop root, who may run this
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match=f"The folder {folder}/b cannot be read: Permission denied"):
        names(folder)
    assert find_files(folder / "gone", (".jpg",)) == []


def test_a_pattern_names_files_in_folders_but_not_what_systems_leave_behind(folder):
    (folder / "a.b/._1.jpg").touch()
    assert find_matching(folder / "a*/*.jpg") == [f"{folder}/a.b/1.jpg", f"{folder}/a/1.jpg"]
    assert find_matching(folder / "**/2.*") == [f"{folder}/b/2.JPG"]
    assert find_matching(folder / ".1.*") == [f"{folder}/.1.jpg"]


def test_a_pattern_passes_over_folders_of_debris_unless_it_names_them(folder):
    assert find_matching(folder / "*/*.jpg") == [f"{folder}/a.b/1.jpg", f"{folder}/a/1.jpg"]
    assert find_matching(folder / "**/*.jpg") == [f"{folder}/a.b/1.jpg", f"{folder}/a/1.jpg"]
    assert find_matching(folder / "__MACOSX/*.jpg") == [f"{folder}/__MACOSX/1.jpg"]
