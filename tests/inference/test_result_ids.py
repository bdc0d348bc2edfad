"""Ids of detections: of an annotation file, by the names of its images and categories."""

import json
from types import SimpleNamespace

import pytest

from tests.data.datasets.conftest import coco_content
from tests.inference.conftest import read
from virtex_det.config import load_config
from virtex_det.data.datasets import load_dataset
from virtex_det.errors import UserError
from virtex_det.inference.result_ids import ids_of_dataset, ids_of_file, read_ids


def test_ids_are_those_of_the_annotation_file(detector, photos, annotations):
    content = read(annotations)
    ids = ids_of_file(detector, read_ids(annotations, photos[::-1]))
    of_file = {image["file_name"]: image["id"] for image in content["images"]}
    assert list(ids.images) == [of_file[path.name] for path in photos[::-1]]
    assert {*zip(detector.classes, ids.categories, strict=True)} == {
        (category["name"], category["id"]) for category in content["categories"]
    }


def test_the_longest_name_that_a_path_ends_in_counts(tmp_path, annotations):
    content = read(annotations) | {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "val/a.jpg"}],
        "annotations": [],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    paths = [tmp_path / "val" / "a.jpg", tmp_path / "other" / "a.jpg"]
    assert read_ids(tmp_path / "truth.json", paths).images == [2, 1]


def test_lvis_names_an_image_by_its_address(tmp_path, annotations):
    images = [{"id": 5, "coco_url": "http://images.cocodataset.org/val2017/000000000139.jpg"}]
    content = read(annotations) | {"images": images, "annotations": []}
    (tmp_path / "lvis.json").write_text(json.dumps(content))
    paths = [tmp_path / "val2017" / "000000000139.jpg"]
    assert read_ids(tmp_path / "lvis.json", paths).images == [5]


def test_a_picture_that_the_file_does_not_name_is_refused(tmp_path, annotations):
    message = r"1 of 1 pictures are not in .*instances_val.json, e.g. .*holiday.jpg"
    with pytest.raises(UserError, match=message):
        read_ids(annotations, [tmp_path / "holiday.jpg"])


def test_classes_that_the_file_does_not_name_are_refused(detector, photos, tmp_path, annotations):
    content = read(annotations) | {"categories": [{"id": 1, "name": "dog"}], "annotations": []}
    (tmp_path / "dogs.json").write_text(json.dumps(content))
    message = rf"class {detector.classes[0]} is not a category of .*dogs.json, which has dog"
    with pytest.raises(UserError, match=message):
        ids_of_file(detector, read_ids(tmp_path / "dogs.json", photos))


@pytest.mark.parametrize(
    ("rules", "classes", "ids"),
    [
        ((), ["bolt"], [2]),
        (("bolt",), ["bolt"], [2]),  # the file's own, as it has the class
        ((["screw", "bolt"], "nut"), ["screw", "nut"], [1, 2]),
    ],
)
def test_categories_are_those_of_the_data_or_of_the_classes_of_the_run(rules, classes, ids, coco):
    load_dataset(name := coco(coco_content()))
    cfg = load_config(overrides={"DATASETS.CLASSES": rules})
    assert ids_of_dataset(SimpleNamespace(cfg=cfg, classes=classes), name, [7]) == ([7], ids)
