from pathlib import Path

import pytest

from virtex_det.pages.paths import shown_path, without_absolute_paths


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/runs/captions/model_final.pth", "…/captions/model_final.pth"),
        ("weights in /data/people/me/moco.pth, read once", "weights in …/me/moco.pth, read once"),
        ("coco:/data/a/train.json:/data/a/images", "coco:…/a/train.json:…/a/images"),
        ("('/data/a/b/c.json',)", "('…/b/c.json',)"),
        ("--output=/data/a/b c", "--output=…/a/b c"),
        ("file:///data/me/x.pth", "file://…/me/x.pth"),
    ],
)
def test_an_absolute_path_keeps_its_last_parts(text, shown):
    assert without_absolute_paths(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/a/b/c.pth",
        "virtex://bicaptioning_R_50_L1_H2048",
        "configs/detectron2/coco.yaml",
        "../runs/a/b",
        "~/runs/a/b",
        '"$OUTPUT/runs/a"',
        "cup/mug/glass",
        "1/2/3",
        "/m/01g317",
        "a / b",
        "…/captions/model_final.pth",
    ],
)
def test_what_is_no_absolute_path_stays(text):
    assert without_absolute_paths(text) == text


def test_a_path_below_the_working_folder_is_relative_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "output" / "run a" / "x.pth") == "output/run a/x.pth"
    assert without_absolute_paths(f"in {tmp_path}/output/x.pth") == "in output/x.pth"
    assert shown_path(Path("relative/x.pth")) == "relative/x.pth"


@pytest.mark.parametrize(
    ("path", "shown"),
    [("/x.pth", "…/x.pth"), ("/data/x.pth", "…/x.pth"), ("/a/b/x.pth", "…/b/x.pth")],
)
def test_a_path_of_few_parts_keeps_its_file(path, shown):
    assert shown_path(path) == shown


def test_a_path_with_spaces_is_shown_by_its_last_parts():
    assert shown_path("/home/jo smith/my runs/captions/x.pth") == "…/captions/x.pth"
