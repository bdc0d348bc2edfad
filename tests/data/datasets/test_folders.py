import pytest

from virtex_det.data.datasets.folders import find_files, is_data

LEFT_BEHIND = (
    ".ipynb_checkpoints/1-checkpoint.jpg",
    "._1.jpg",
    "__MACOSX/1.jpg",
    ".1.jpg",
    "a/.hidden/1.jpg",
    "a/.DS_Store",
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
    assert not any(map(is_data, (".DS_Store", "Thumbs.db", "__MACOSX", "desktop.ini")))


def test_a_folder_that_is_itself_hidden_may_be_named(folder):
    assert names(folder / ".ipynb_checkpoints") == ["1-checkpoint.jpg"]


def test_links_are_followed_and_circles_of_them_end(folder):
    (folder / "a/circle").symlink_to(folder)
    (folder / "c").symlink_to(folder / "b")
    (folder / "gone").symlink_to(folder / "nowhere")
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    assert names(folder) == ["a/1.jpg", "a.b/1.jpg", "b/2.JPG"]
