"""Captions with boxes: joined by image id, with fractions of the image."""

import json
from pathlib import Path

import pytest

from virtex_det.data.datasets import check_datasets, dataset_version, load_dataset
from virtex_det.data.datasets.regions import load_regions
from virtex_det.errors import UserError

CAPTIONS = {
    "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}],
    "annotations": [{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": "grass"}],
}
BOXES = {
    "images": [
        {"id": 1, "file_name": "1.png", "width": 100, "height": 50},
        {"id": 3, "file_name": "3.png", "width": 100, "height": 50},
    ],
    "annotations": [
        *[
            {"id": number, "image_id": 1, "category_id": 7, "bbox": box, "iscrowd": crowd}
            for number, (box, crowd) in enumerate([([10, 20, 30, 30], 0), ([0, 0, 9, 9], 1)], 1)
        ],
        {"id": 9, "image_id": 3, "category_id": 7, "bbox": [0, 0, 9, 9], "iscrowd": 0},
    ],
    "categories": [{"id": 7, "name": "dog"}],
}


@pytest.fixture
def write(tmp_path):
    """Writes a captions and an instances file; returns their paths."""

    def write_both(captions=CAPTIONS, boxes=BOXES) -> tuple[Path, Path]:
        paths = tmp_path / "captions.json", tmp_path / "instances.json"
        for path, content in zip(paths, (captions, boxes), strict=True):
            path.write_text(json.dumps(content))
        return paths

    return write_both


def test_boxes_are_fractions_with_the_names_of_categories_and_crowds_are_left_out(write, tmp_path):
    first, second = load_regions(*write(), tmp_path)
    assert first["captions"] == ["a dog"] and second["captions"] == ["grass"]
    assert first["regions"] == [{"text": "dog", "box": (0.1, 0.4, 0.4, 1.0)}]
    assert second["regions"] == []


def test_files_of_different_images_are_refused(write, tmp_path):
    others = {**BOXES, "images": [BOXES["images"][1]], "annotations": BOXES["annotations"][2:]}
    with pytest.raises(UserError, match=r"no image id in common, e\.g\. 1 and 3"):
        load_regions(*write(boxes=others), tmp_path)


def test_a_file_without_objects_is_refused(write, tmp_path):
    with pytest.raises(UserError, match=r"instances\.json cannot be used"):
        load_regions(*write(boxes=["nothing"]), tmp_path)


def test_own_files_need_no_python_and_both_are_in_the_version(write, tmp_path):
    captions, boxes = write()
    name = f"regions:{captions}:{boxes}:{tmp_path}"
    assert load_dataset(name)[0]["regions"][0]["text"] == "dog"
    before = dataset_version(name)["sha256"]
    other = {**BOXES, "categories": [{"id": 7, "name": "cat"}]}
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "captions.json").write_text(json.dumps(CAPTIONS))
    (folder / "instances.json").write_text(json.dumps(other))
    other_name = f"regions:{folder}/captions.json:{folder}/instances.json:{tmp_path}"
    assert dataset_version(other_name)["sha256"] != before


def test_a_missing_file_of_boxes_is_named(write, tmp_path):
    captions, boxes = write()
    boxes.unlink()
    with pytest.raises(UserError, match=r"is missing:\n  instances\.json in "):
        check_datasets([f"regions:{captions}:{boxes}:{tmp_path}"])


def test_a_name_without_a_file_of_boxes_is_refused_with_the_form(tmp_path):
    with pytest.raises(UserError, match=r"regions:CAPTIONS\.json:INSTANCES\.json:IMAGE_FOLDER"):
        check_datasets([f"regions:captions.json:{tmp_path}"])


def test_scenes_with_boxes_are_built_in(scenes):
    dicts = load_dataset("scenes_train_regions")
    assert len(dicts) == 12 and all(entry["captions"] and entry["regions"] for entry in dicts)
    assert {"text", "box"} == dicts[0]["regions"][0].keys()
