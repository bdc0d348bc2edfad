import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from virtex_det.data.datasets import (
    check_datasets,
    datasets_root,
    load_dataset,
    register_builtin_datasets,
)
from virtex_det.data.datasets.scenes import SHAPES

EVALUATORS = {
    "scenes_train": "coco",
    "scenes_val": "coco",
    "scenes_train_captions": "captions",
    "scenes_val_captions": "captions",
    "scenes_unlabelled_captions": "captions",
    "scenes_train_narratives": "captions",
    "scenes_val_narratives": "captions",
    "scenes_unlabelled_narratives": "captions",
    "scenes_train_regions": "captions",
    "scenes_val_regions": "captions",
    "scenes_train_words": "captions",
    "scenes_val_words": "captions",
    "coco_2017_train_captions": "captions",
    "coco_2017_train_regions": "captions",
    "coco_2017_val_regions": "captions",
    "coco_mini_train_regions": "captions",
    "coco_2017_train_narratives": "captions",
    "coco_2017_val_narratives": "captions",
    "coco_2017_val_captions": "captions",
    "coco_mini_train": "coco",
    "coco_mini_val": "coco",
    "coco_mini_train_captions": "captions",
    "coco_mini_val_captions": "captions",
    "voc_mini_trainval": "pascal_voc",
    "voc_mini_test": "pascal_voc",
    "lvis_100_val": "lvis",
}


@pytest.fixture
def register_at():
    """Register below another folder; the registrations of this process come back afterwards."""
    lvis = {
        name: (DatasetCatalog[name], MetadataCatalog[name])
        for name in ("lvis_v1_train", "lvis_v1_val")
    }
    yield register_builtin_datasets
    register_builtin_datasets(datasets_root())
    for name, (loader, metadata) in lvis.items():
        DatasetCatalog[name], MetadataCatalog[name] = loader, metadata


@pytest.mark.parametrize("name", EVALUATORS)
def test_every_name_is_registered_with_its_evaluator(name):
    assert name in DatasetCatalog.list()
    assert MetadataCatalog.get(name).evaluator_type == EVALUATORS[name]


def test_the_classes_of_scenes_are_known_without_their_files(register_at, tmp_path):
    register_at(tmp_path / "nowhere")
    assert MetadataCatalog.get("scenes_val").thing_classes == list(SHAPES)


def test_registering_again_moves_the_datasets(register_at, tmp_path):
    register_at(tmp_path)
    assert MetadataCatalog.get("scenes_val").image_root == str(tmp_path / "scenes" / "val")
    assert MetadataCatalog.get("voc_mini_test").dirname == str(tmp_path / "voc_mini" / "VOC2007")


def test_the_root_is_read_as_detectron2_does(monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", "~/data")
    assert datasets_root().name == "data" and "~" not in str(datasets_root())
    monkeypatch.delenv("DETECTRON2_DATASETS")
    assert str(datasets_root()) == "datasets"


def test_generated_scenes_load(scenes):
    dicts = load_dataset("scenes_train")
    assert len(dicts) == 12
    assert {
        annotation["category_id"] for entry in dicts for annotation in entry["annotations"]
    } <= set(range(8))
    captioned = load_dataset("scenes_train_captions")
    assert [entry["file_name"] for entry in captioned] == [entry["file_name"] for entry in dicts]


LVIS_V1 = {
    "images": [
        {"id": 7, "height": 4, "width": 4, "coco_url": "http://images/val2017/000000000007.jpg"}
    ],
    "annotations": [],
    "categories": [],
}


def _write_lvis(root, *names):
    (root / "coco").mkdir()
    (root / "lvis").mkdir()
    for name in names:
        (root / "lvis" / name).write_text(json.dumps(LVIS_V1))


def test_lvis_v1_is_found_under_its_other_name(register_at, tmp_path):
    _write_lvis(tmp_path, "lvis_v1.0_val.json")
    register_at(tmp_path)
    assert (
        load_dataset("lvis_v1_val")[0]["file_name"] == f"{tmp_path}/coco/val2017/000000000007.jpg"
    )
    metadata = MetadataCatalog.get("lvis_v1_val")
    assert metadata.evaluator_type == "lvis" and len(metadata.thing_classes) == 1203


def test_lvis_v1_under_its_usual_name_is_left_alone(register_at, tmp_path):
    before = MetadataCatalog.get("lvis_v1_val")
    _write_lvis(tmp_path, "lvis_v1.0_val.json", "lvis_v1_val.json")
    register_at(tmp_path)
    assert MetadataCatalog.get("lvis_v1_val") is before


@pytest.mark.parametrize(
    ("name", "images", "annotations", "classes"),
    [
        ("coco_mini_train", 80, 739, 80),
        ("coco_mini_val", 158, 1424, 80),
        ("voc_mini_trainval", 65, None, 20),
        ("voc_mini_test", 35, None, 20),
        ("lvis_100_val", 9, 55, 1230),
    ],
)
def test_real_samples_load(name, images, annotations, classes, samples, register_at):
    register_at(samples)
    dicts = load_dataset(name)
    assert len(dicts) == images and all(Path(entry["file_name"]).is_file() for entry in dicts)
    if annotations:
        assert sum(len(entry["annotations"]) for entry in dicts) == annotations
    assert len(MetadataCatalog.get(name).thing_classes) == classes


@pytest.mark.parametrize(
    ("name", "images"), [("coco_mini_train_captions", 80), ("coco_mini_val_captions", 158)]
)
def test_real_captions_load(name, images, samples, register_at):
    register_at(samples)
    dicts = load_dataset(name)
    assert len(dicts) == images and all(len(entry["captions"]) == 5 for entry in dicts)


def test_real_samples_are_all_there(samples, register_at):
    register_at(samples)
    check_datasets([name for name in EVALUATORS if "mini" in name or "lvis" in name])
