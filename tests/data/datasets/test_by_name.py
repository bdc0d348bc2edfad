import json
import logging

import hotcoco
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, load_lvis_json

from tests.data.datasets.conftest import coco_content, lvis_content
from virtex_det.data.datasets import check_datasets, load_dataset
from virtex_det.data.datasets.by_name import find_source, read_found
from virtex_det.errors import UserError
from virtex_det.evaluation.build import evaluator_kind
from virtex_det.evaluation.detection.results_file import read_ground_truth


def _stock(file, images):
    """Return Detectron2's reading, with class numbers."""
    dicts = load_coco_json(str(file), str(images), "stock")
    MetadataCatalog.remove("stock")
    return dicts


def test_a_coco_file_is_registered_at_first_use_and_equals_detectron2s_reading(coco, tmp_path):
    name = coco(coco_content())
    dicts = load_dataset(name)
    assert dicts == _stock(f"{tmp_path}/instances.json", f"{tmp_path}/images")
    assert name in DatasetCatalog.list() and load_dataset(name) == dicts
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == ["nut", "bolt"] and metadata.evaluator_type == "coco"
    assert find_source(name).kind == "coco" and find_source("coco_2017_val") is None
    assert len(read_found(name).content["annotations"]) == 3


def test_lvis_is_read_by_its_own_categories(coco, tmp_path, write_image):
    content = lvis_content()
    name = coco(content, "lvis")
    write_image(tmp_path / "images" / "val2017" / "a.jpg")
    first, second = load_dataset(name)
    assert first["file_name"] == f"{tmp_path}/images/val2017/a.jpg"
    assert second["file_name"] == f"{tmp_path}/images/b.jpg"  # own data has a file_name only
    assert first["neg_category_ids"] == [2] and first["not_exhaustive_category_ids"] == []
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == ["nut", "bolt"] and metadata.evaluator_type == "lvis"
    assert metadata.class_image_count == [
        {"id": 1, "image_count": 2},
        {"id": 2, "image_count": 2},
    ]
    assert read_ground_truth(name).style == "lvis"


def test_an_image_of_lvis_without_any_name_is_named_with_its_file(coco):
    content = lvis_content()
    del content["images"][1]["file_name"]
    with pytest.raises(UserError, match="instances.json cannot be used: image 2 has neither"):
        load_dataset(coco(content, "lvis"))


def test_keypoints_that_are_left_and_right_are_exchanged_in_a_flip(coco):
    content = coco_content()
    content["categories"][1]["keypoints"] = ["head", "left_end", "right_end", "left_side"]
    load_dataset(name := coco(content))
    metadata = MetadataCatalog.get(name)
    assert metadata.keypoint_names == content["categories"][1]["keypoints"]
    assert metadata.keypoint_flip_map == [("left_end", "right_end")]


def test_a_folder_of_images_has_no_labels_and_nothing_to_measure(write_image, tmp_path, catalog):
    write_image(tmp_path / "b.png")
    write_image(tmp_path / "sub" / "a.jpg")
    name = f"folder:{tmp_path}"
    assert load_dataset(name) == [
        {"file_name": f"{tmp_path}/b.png", "image_id": "b.png"},
        {"file_name": f"{tmp_path}/sub/a.jpg", "image_id": "sub/a.jpg"},
    ]
    with pytest.raises(UserError, match="without labels: there is nothing to measure"):
        evaluator_kind(name)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("coco:instances.json", "coco:FILE.json:IMAGES"),
        ("lvis:instances.json:", "lvis:FILE.json:IMAGES"),
        ("yolo:data.yaml", "yolo:data.yaml:SPLIT"),
        ("voc:VOC2007", "voc:FOLDER:SPLIT"),
    ],
)
def test_a_name_without_its_parts_shows_the_form(name, form):
    with pytest.raises(UserError, match=form):
        check_datasets([name])


def test_missing_files_are_named_with_the_nearest_beside_them(coco, tmp_path):
    wrong = coco(coco_content()).replace("instances.json", "instance.json")
    with pytest.raises(UserError, match="instance.json in .*; did you mean instances.json"):
        check_datasets([wrong])
    for name in (f"yolo:{tmp_path}/dat.yaml:train", f"voc:{tmp_path}/VOC:all", "folder:/gone"):
        with pytest.raises(UserError, match="is missing"):
            check_datasets([name])


@pytest.mark.parametrize("length", [300, 5000])  # of a name alone, and of a whole path
def test_a_name_that_is_too_long_is_missing(length, catalog):
    for name in (f"coco:{'x' * length}:images", f"folder:/{'x' * length}/a"):
        with pytest.raises(UserError, match="is missing"):
            check_datasets([name])


def test_a_missing_file_is_named_once(tmp_path, catalog):
    with pytest.raises(UserError) as error:
        check_datasets([f"coco:{tmp_path}/gone.json:{tmp_path}"])
    assert str(error.value).count("gone.json in") == 1


@pytest.mark.parametrize("name", ["coco:https://x.org/a.json:i", "yolo:https://x.org/d.yaml:val"])
def test_addresses_are_never_fetched(name, catalog):
    with pytest.raises(UserError, match="data are never fetched"):
        check_datasets([name])


def test_a_broken_json_is_named(coco, tmp_path):
    name = coco(coco_content())
    (tmp_path / "instances.json").write_text(json.dumps(coco_content())[:-9])
    with pytest.raises(UserError, match="instances.json is not JSON"):
        load_dataset(name)


def test_the_samples_of_coco_and_lvis_equal_detectron2s_reading(samples, catalog):
    file, images = samples / "coco_mini/annotations/instances_val2017.json", "coco_mini/val2017"
    dicts = _stock(file, samples / images)
    assert load_dataset(f"coco:{file}:{samples / images}") == dicts
    file = samples / "lvis_100/annotations/lvis_val_9_with_images.json"
    dicts = load_lvis_json(str(file), f"{samples}/lvis_100/")
    assert load_dataset(f"lvis:{file}:{samples / 'lvis_100'}") == dicts


def test_the_sample_of_voc_equals_detectron2s_reading(samples, catalog):
    from detectron2.data.datasets.pascal_voc import CLASS_NAMES, load_voc_instances

    folder = samples / "voc_mini" / "VOC2007"
    dicts = load_voc_instances(str(folder), "test", CLASS_NAMES)
    found = load_dataset(f"voc:{folder}:test")
    assert MetadataCatalog.get(f"voc:{folder}:test").thing_classes == list(CLASS_NAMES)
    for ours, theirs in zip(found, dicts, strict=True):
        for key in ("file_name", "image_id", "height", "width"):
            assert ours[key] == theirs[key]
        for own, other in zip(ours["annotations"], theirs["annotations"], strict=True):
            x, y, w, h = own["bbox"]
            assert [x, y, x + w, y + h] == other["bbox"]
            assert own["category_id"] == other["category_id"]


def test_images_of_both_samples_have_the_same_boxes_in_yolos_and_cocos_form(samples, catalog):
    coco = samples / "coco_mini"
    name = f"coco:{coco}/annotations/instances_val2017.json:{coco}/val2017"
    yolo = f"yolo:{samples}/coco128/data.yaml:val"
    by_file = {entry["file_name"].rpartition("/")[2]: entry for entry in load_dataset(name)}
    shared = [
        (entry, by_file[file])
        for entry in load_dataset(yolo)
        if (file := entry["file_name"].rpartition("/")[2]) in by_file
    ]
    assert MetadataCatalog.get(name).thing_classes == MetadataCatalog.get(yolo).thing_classes
    assert len(shared) == 5
    for ours, theirs in shared:
        assert (ours["height"], ours["width"]) == (theirs["height"], theirs["width"])
        ours, theirs = _objects(ours), _objects(theirs)
        # Six digits of a share of 640 pixels are finer than a thousandth of a pixel.
        nearest = np.abs(ours[:, None] - theirs).max(axis=2)
        assert len(ours) == len(theirs) and (nearest.min(axis=1) < 0.002).all()
        assert sorted(nearest.argmin(axis=1)) == list(range(len(ours)))


def test_a_sample_of_coco_that_hotcoco_wrote_in_yolos_form_has_the_same_boxes(
    samples, catalog, tmp_path
):
    file = samples / "coco_mini/annotations/instances_val2017.json"
    hotcoco.COCO(str(file)).to_yolo(str(tmp_path / "labels" / "val"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "val").symlink_to(samples / "coco_mini" / "val2017")
    settings = (tmp_path / "labels" / "val" / "data.yaml").read_text()
    (tmp_path / "data.yaml").write_text(f"{settings}\nval: images/val\n")
    coco, yolo = f"coco:{file}:{samples}/coco_mini/val2017", f"yolo:{tmp_path}/data.yaml:val"
    theirs = {entry["file_name"].rpartition("/")[2]: entry for entry in load_dataset(coco)}
    ours = {entry["file_name"].rpartition("/")[2]: entry for entry in load_dataset(yolo)}
    assert MetadataCatalog.get(coco).thing_classes == MetadataCatalog.get(yolo).thing_classes
    assert ours.keys() == theirs.keys() and len(ours) == 158
    for file, entry in ours.items():
        np.testing.assert_allclose(_objects(entry), _objects(theirs[file]), atol=0.002)


def _objects(entry):
    """Return class and box of each object that is no crowd. # shape: (N, 5)"""
    found = [each for each in entry["annotations"] if not each.get("iscrowd")]
    return np.array([[each["category_id"], *each["bbox"]] for each in found]).reshape(-1, 5)


def test_notes_are_in_what_is_found(yolo, caplog):
    name = yolo({"a.jpg": "0 0.5 0.5 0.1 0.1", "b.jpg": None})
    with caplog.at_level(logging.WARNING):
        check_datasets([name])
        assert not caplog.text
    assert read_found(name).notes == ("1 of 2 images have no object: no label, or an empty one",)
