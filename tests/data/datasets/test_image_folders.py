import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from virtex_det.data.datasets import load_dataset
from virtex_det.data.datasets.image_folders import (
    check_labels,
    register_image_folders,
    register_inaturalist,
)
from virtex_det.errors import UserError


@pytest.fixture
def register():
    """Registers a data set for the length of a test; returns its name."""
    names = []

    def register_as(function, name, *paths):
        function(name, *paths)
        names.append(name)
        return name

    yield register_as
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def folders(tmp_path, register):
    """Registers a split of empty images, given how many each class has."""

    def make(split, **counts):
        for name, count in counts.items():
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (2, 2)).save(tmp_path / split / name / f"{index}.JPEG")
        return register(register_image_folders, f"folders_{split}", tmp_path / split)

    return make


@pytest.fixture
def inaturalist(tmp_path, register):
    content = {
        "images": [
            {"id": 5, "file_name": "train_val2018/Aves/3/a.jpg"},
            {"id": 6, "file_name": "b.jpg"},
        ],
        "annotations": [
            {"id": 1, "image_id": 6, "category_id": 30},
            {"id": 2, "image_id": 5, "category_id": 7},
        ],
        "categories": [{"id": 30, "name": "thirty"}, {"id": 7, "name": "seven"}],
    }

    def make(**changes):
        (tmp_path / "train2018.json").write_text(json.dumps(content | changes))
        return register(
            register_inaturalist, "inaturalist_test", tmp_path / "train2018.json", tmp_path
        )

    return make


def test_sorted_folders_are_the_labels(folders, tmp_path):
    name = folders("train", cat=1, ant=2)
    assert load_dataset(name) == [
        {"file_name": str(tmp_path / "train/ant/0.JPEG"), "image_id": "ant/0.JPEG", "label": 0},
        {"file_name": str(tmp_path / "train/ant/1.JPEG"), "image_id": "ant/1.JPEG", "label": 0},
        {"file_name": str(tmp_path / "train/cat/0.JPEG"), "image_id": "cat/0.JPEG", "label": 1},
    ]
    assert MetadataCatalog.get(name).classes == ["ant", "cat"]
    assert MetadataCatalog.get(name).evaluator_type == "classification"


def test_a_class_without_images_is_an_error_that_names_it(folders):
    with pytest.raises(UserError, match=r"classes bee(?s:.*)Unpack the class again"):
        load_dataset(folders("train", ant=1, bee=0))


def test_a_root_without_class_folders_is_an_error(folders, tmp_path):
    name = folders("train")
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="CLASS/IMAGE"):
        load_dataset(name)


def test_a_missing_root_is_an_error_that_names_it(folders, tmp_path):
    with pytest.raises(UserError, match=f"missing:\n  train in {tmp_path}"):
        load_dataset(folders("train"))


def test_labels_of_inaturalist_are_its_categories_in_the_order_of_their_ids(inaturalist, tmp_path):
    name = inaturalist()
    assert load_dataset(name) == [
        {"file_name": str(tmp_path / "b.jpg"), "image_id": 6, "label": 1},
        {"file_name": str(tmp_path / "train_val2018/Aves/3/a.jpg"), "image_id": 5, "label": 0},
    ]
    assert MetadataCatalog.get(name).classes == ["seven", "thirty"]


@pytest.mark.parametrize(
    "changes", [{"categories": [{"id": 30, "name": "thirty"}]}, {"images": []}, {"images": None}]
)
def test_annotations_that_refer_to_nothing_are_an_error_that_names_the_file(inaturalist, changes):
    with pytest.raises(UserError, match=r"train2018\.json cannot be used"):
        load_dataset(inaturalist(**changes))


def test_equal_classes_and_as_many_outputs_pass(folders):
    check_labels([folders("train", ant=1, bee=1), folders("val", ant=1, bee=1)], 2)


def test_another_number_of_outputs_is_an_error_that_says_what_to_set(folders):
    with pytest.raises(
        UserError, match=r"has 1000 classes(?s:.*)Set MODEL.CLASSIFIER.NUM_CLASSES 2"
    ):
        check_labels([folders("train", ant=1, bee=1)], 1000)


def test_splits_of_different_classes_are_an_error_that_names_them(folders):
    names = [folders("train", ant=1, bee=1, cat=1), folders("val", ant=1, bee=1, dog=1)]
    with pytest.raises(
        UserError,
        match=r"only in folders_train: 1 (?s:.*)cat(?s:.*)only in folders_val: 1 (?s:.*)dog",
    ):
        check_labels(names, 3)


def test_data_sets_for_other_tasks_are_not_looked_at():
    check_labels(["voc_mini_trainval", "coco_2017_train_captions"], 5)


@pytest.mark.parametrize(
    ("name", "file", "root"),
    [
        ("imagenet_train", None, "imagenet/train"),
        ("imagenet_val", None, "imagenet/val"),
        ("inaturalist_2018_train", "inat2018/train2018.json", "inat2018"),
        ("inaturalist_2018_val", "inat2018/val2018.json", "inat2018"),
    ],
)
def test_imagenet_and_inaturalist_have_their_places(name, file, root):
    metadata = MetadataCatalog.get(name)
    assert metadata.image_root.endswith(root)
    assert metadata.evaluator_type == "classification"
    assert file is None or metadata.json_file.endswith(file)


def test_what_systems_leave_behind_is_no_class_and_no_image(folders, tmp_path):
    for folder in (".ipynb_checkpoints", "__MACOSX", ".cache"):
        (tmp_path / "train" / folder).mkdir(parents=True)
    name = folders("train", ant=1, bee=1)
    (tmp_path / "train/ant/._0.JPEG").touch()
    assert [entry["image_id"] for entry in load_dataset(name)] == ["ant/0.JPEG", "bee/0.JPEG"]
    assert MetadataCatalog.get(name).classes == ["ant", "bee"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": [{"id": 5, "file_name": "a.jpg"}, {"id": 5, "file_name": "b.jpg"}]},
            "image id 5 occurs twice",
        ),
        (
            {"categories": [{"id": 30, "name": "a"}, {"id": 30, "name": "b"}]},
            "category id 30 occurs twice",
        ),
        (
            {"annotations": [{"id": 1, "image_id": 5, "category_id": 7}] * 2},
            "annotation id 1 occurs twice",
        ),
        (
            {"annotations": [{"id": k, "image_id": 5, "category_id": 7} for k in (1, 2)]},
            "image id 5 occurs twice",
        ),
        ({"annotations": [{"id": 1, "image_id": True, "category_id": 7}]}, "image_id True"),
        ({"annotations": [{"id": 1, "image_id": 5}]}, "'category_id'"),
        ({"images": [{"id": 5, "file_name": None}, {"id": 6, "file_name": "b.jpg"}]}, "TypeError"),
    ],
)
def test_ids_of_inaturalist_that_repeat_or_are_none_are_refused(inaturalist, changes, message):
    with pytest.raises(UserError, match=message):
        load_dataset(inaturalist(**changes))
