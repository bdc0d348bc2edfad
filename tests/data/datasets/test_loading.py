import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_lvis_json, register_coco_instances, register_pascal_voc

from virtex_det.data.datasets import (
    check_datasets,
    check_num_classes,
    load_dataset,
    register_coco_captions,
)
from virtex_det.errors import UserError

NAME = "test_loading"
CONTENT = {
    "images": [{"id": 1, "file_name": "1.jpg", "height": 8, "width": 8}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16, "iscrowd": 0}
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}


@pytest.fixture(autouse=True)
def forget_dataset():
    yield
    DatasetCatalog.pop(NAME, None)
    MetadataCatalog.pop(NAME, None)


@pytest.fixture
def register(tmp_path):
    """Write an annotation file and register it as NAME; content None writes none."""

    def register(content, **metadata):
        path = tmp_path / "instances.json"
        if content is not None:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        register_coco_instances(NAME, metadata, str(path), str(tmp_path))
        return path

    return register


def _with_annotation(**changes):
    return {**CONTENT, "annotations": [{**CONTENT["annotations"][0], **changes}]}


def test_a_dataset_loads_as_detectron2_loads_it(register):
    register(CONTENT)
    assert load_dataset(NAME) == DatasetCatalog.get(NAME)
    assert MetadataCatalog.get(NAME).thing_classes == ["cat", "dog"]


def test_an_unknown_name_is_an_error_that_offers_near_ones():
    with pytest.raises(UserError, match="coco_2017_trian.*\n.*coco_2017_train"):
        check_datasets(["coco_2017_val_100", "coco_2017_trian"][1:])


def test_a_missing_standard_file_says_where_it_was_looked_for_and_what_is_set(monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", "/some/folder")
    with pytest.raises(
        UserError, match="instances_train2017.json in .*(?s:.*)DETECTRON2_DATASETS is /some/folder"
    ):
        load_dataset("coco_2017_train")


def test_a_missing_standard_file_says_where_to_put_it_when_nothing_is_set(monkeypatch):
    monkeypatch.delenv("DETECTRON2_DATASETS")
    with pytest.raises(UserError, match="DETECTRON2_DATASETS is not set, which means .*/datasets;"):
        check_datasets(["coco_2017_train"])


def test_a_missing_file_of_the_users_own_data_is_where_it_was_registered(register, tmp_path):
    register(None)
    with pytest.raises(
        UserError,
        match=f"instances.json in {tmp_path}\n.* was registered with these paths",
    ) as error:
        load_dataset(NAME)
    assert "DETECTRON2_DATASETS" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["coco_2017_train", "lvis_v1_train", "voc_2007_trainval", "coco_2017_train_captions"]
)
def test_the_standard_datasets_are_checked_too(name):
    with pytest.raises(UserError, match=f"data set {name} is missing"):
        check_datasets([name])


def test_missing_scenes_say_how_to_make_them():
    MetadataCatalog.pop(NAME, None)
    register_coco_captions(
        NAME, "nowhere/captions.json", "nowhere", made_by="python tools/generate_scenes.py"
    )
    with pytest.raises(UserError, match="Make it with: virtex-det data scenes"):
        check_datasets([NAME])


@pytest.mark.parametrize("content", ["", "<html>", '{"images": ['])
def test_annotations_that_are_not_json_are_an_error_that_names_the_file(content, register):
    path = register(content)
    with pytest.raises(UserError, match=f"{path} is not JSON"):
        load_dataset(NAME)


@pytest.mark.parametrize(
    "content",
    [[], {}, {"images": CONTENT["images"]}, {**CONTENT, "annotations": [{"id": 1}]}],
    ids=str,
)
def test_annotations_of_another_form_are_an_error_that_names_the_file(content, register):
    path = register(content)
    with pytest.raises(UserError, match=f"{path} cannot be used"):
        load_dataset(NAME)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"image_id": 1, "segments_info": []}, "is of panoptic segmentation"),
        ({"id": 1, "image_id": 1, "caption": "a cat"}, "its annotations are captions, without box"),
    ],
)
def test_annotations_of_another_task_are_named(annotation, message, register):
    path = register({**CONTENT, "annotations": [annotation]})
    with pytest.raises(UserError, match=f"{path}.* {message}(?s:.*) instances_val2017.json"):
        load_dataset(NAME)


def test_keypoint_annotations_are_boxes_and_masks_too(register):
    register(_with_annotation(keypoints=[1, 1, 2], num_keypoints=1))
    [image] = load_dataset(NAME)
    assert image["annotations"][0]["bbox"] == [0, 0, 4, 4]


def test_a_category_that_the_file_does_not_list_is_named(register):
    path = register(_with_annotation(category_id=77))
    with pytest.raises(UserError, match=f"{path} cannot be used: annotation 1 has category_id 77"):
        load_dataset(NAME)


def test_categories_other_than_the_registered_ones_are_an_error(register):
    path = register(CONTENT, thing_classes=["circle", "square"])
    with pytest.raises(UserError, match=f"(?s){path} cannot be used.*circle.*cat"):
        load_dataset(NAME)


def test_an_lvis_category_out_of_range_is_an_error(tmp_path):
    image = {"id": 1, "height": 8, "width": 8, "coco_url": "http://images/val2017/1.jpg"}
    annotation = {
        "id": 1,
        "image_id": 1,
        "category_id": 3,
        "bbox": [0, 0, 4, 4],
        "segmentation": [[0, 0, 4, 0, 4, 4]],
    }
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps({"images": [image], "annotations": [annotation], "categories": []}))
    DatasetCatalog.register(NAME, lambda: load_lvis_json(str(path), f"{tmp_path}/"))
    MetadataCatalog.get(NAME).set(
        json_file=str(path), image_root=f"{tmp_path}/", thing_classes=["cat", "dog"]
    )
    with pytest.raises(UserError, match="image 1 .* class 2, .* 2 classes .*lvis.json"):
        load_dataset(NAME)


def test_a_dataset_without_images_is_an_error(register):
    register({**CONTENT, "images": [], "annotations": []})
    with pytest.raises(UserError, match="no images"):
        load_dataset(NAME)


@pytest.fixture
def voc(tmp_path):
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (tmp_path / folder).mkdir(parents=True)
    register_pascal_voc(NAME, str(tmp_path), "train", 2007)
    return tmp_path


def test_a_missing_voc_split_is_an_error_that_names_it(voc):
    with pytest.raises(UserError, match=f"train.txt in {voc}/ImageSets/Main"):
        check_datasets([NAME])


@pytest.mark.parametrize(
    "annotation",
    [
        "",
        "<annotation><size><height>1</height><width>1</width></size>"
        "<object><name>yeti</name></object></annotation>",
    ],
)
def test_voc_annotations_that_cannot_be_used_are_an_error(annotation, voc):
    (voc / "ImageSets/Main/train.txt").write_text("a\nb\n")
    for image in "ab":
        (voc / "Annotations" / f"{image}.xml").write_text(annotation)
    with pytest.raises(UserError, match=f"{voc} cannot be used"):
        load_dataset(NAME)


def test_a_wrong_number_of_classes_names_the_key_and_the_value():
    with pytest.raises(UserError, match="80 classes.*\nSet MODEL.ROI_HEADS.NUM_CLASSES 8"):
        check_num_classes("scenes_train", 80)


@pytest.mark.parametrize(
    ("name", "count"), [("scenes_train", 8), ("lvis_100_val", 1230), ("scenes_train_captions", 3)]
)
def test_the_right_number_of_classes_passes(name, count):
    check_num_classes(name, count)


@pytest.mark.parametrize("image_id", [{}, {"image_id": None}, {"image_id": np.int64(3)}])
def test_images_without_an_id_that_files_can_hold_are_an_error(image_id):
    DatasetCatalog.register(
        NAME, lambda: [{"file_name": "1.jpg", "image_id": 1}, {"file_name": "2.jpg", **image_id}]
    )
    with pytest.raises(UserError, match='"image_id" of 1 of 2 images is not an int or str'):
        load_dataset(NAME)


def test_classes_in_the_users_script_that_are_not_the_files_are_shown_side_by_side(register):
    register(CONTENT, thing_classes=["dog", "cat"])
    with pytest.raises(
        UserError,
        match=r"(?s)0 +dog +cat\n.*thing_classes in the order of .*or without thing_classes",
    ) as error:
        load_dataset(NAME)
    assert "Download" not in str(error.value)


def test_what_a_function_raises_is_laid_at_its_door():
    def broken():
        raise KeyError("bbox")

    DatasetCatalog.register(NAME, broken)
    with pytest.raises(UserError, match="KeyError: bbox\n.*function registered under this name"):
        load_dataset(NAME)
