import hashlib
import json
import shutil

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_pascal_voc

from virtex_det.data.datasets import dataset_version, load_dataset, remember_size
from virtex_det.data.datasets.image_folders import register_image_folders
from virtex_det.data.datasets.narratives import register_narratives
from virtex_det.errors import UserError


@pytest.fixture
def forget():
    """Forgets the names that a test registers; the list is its to fill."""
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_a_version_is_the_hash_of_the_annotation_file(scenes):
    path = scenes / "annotations" / "instances_train.json"
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert dataset_version("scenes_train") == {"images": 12, "sha256": expected}
    captions = scenes / "annotations" / "captions_train.json"
    assert (
        dataset_version("scenes_train_captions")["sha256"]
        == hashlib.sha256(captions.read_bytes()).hexdigest()
    )


def test_a_changed_annotation_is_another_version_under_any_name_or_place(scenes, tmp_path, forget):
    content = json.loads((scenes / "annotations" / "instances_train.json").read_text())
    for name in ("same", "changed"):
        shutil.copy(scenes / "annotations" / "instances_train.json", tmp_path / f"{name}.json")
        register_coco_instances(
            f"version_{name}", {}, str(tmp_path / f"{name}.json"), str(scenes / "train")
        )
    content["annotations"][0]["bbox"][0] += 1
    (tmp_path / "changed.json").write_text(json.dumps(content))
    assert (
        dataset_version("version_same")
        == dataset_version("scenes_train")
        != dataset_version("version_changed")
    )


def _write_voc(folder, ids, name="dog"):
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "Annotations").mkdir()
    (folder / "ImageSets/Main/train.txt").write_text("\n".join(ids) + "\n")
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    for image in ids:
        (folder / "Annotations" / f"{image}.xml").write_text(
            "<annotation><size><width>9</width><height>9</height></size>"
            f"<object><name>{name}</name>{box}</object></annotation>"
        )
    return str(folder)


def test_a_version_of_voc_is_of_the_split_and_of_its_images_xml(tmp_path, forget):
    folders = {
        "one": _write_voc(tmp_path / "one", ["000005", "000007"]),
        "moved": _write_voc(tmp_path / "moved", ["000005", "000007"]),
        "more": _write_voc(tmp_path / "more", ["000005", "000007", "000009"]),
        "other": _write_voc(tmp_path / "other", ["000005", "000007"], "cat"),
    }
    (tmp_path / "moved/Annotations/000009.xml").write_text("of another split")
    for name, folder in folders.items():
        register_pascal_voc(f"voc_{name}", folder, "train", 2007)
    versions = {name: dataset_version(f"voc_{name}") for name in folders}
    assert versions["one"] == versions["moved"] and versions["one"]["images"] == 2
    assert len({version["sha256"] for version in versions.values()}) == 3


def test_a_missing_xml_is_an_error(tmp_path, forget):
    folder = _write_voc(tmp_path / "voc", ["000005", "000007"])
    register_pascal_voc("voc_broken", folder, "train", 2007)
    remember_size("voc_broken", 2)
    (tmp_path / "voc/Annotations/000007.xml").unlink()
    with pytest.raises(UserError, match=r"voc_broken is incomplete: .*000007\.xml"):
        dataset_version("voc_broken")


def test_a_version_of_image_folders_is_of_names_and_labels(tmp_path, photo, forget):
    for place, folders in (
        ("one", ("cat", "dog")),
        ("moved", ("cat", "dog")),
        ("other", ("cat", "fox")),
    ):
        for folder in folders:
            (tmp_path / place / folder).mkdir(parents=True)
            shutil.copy(photo, tmp_path / place / folder / "1.jpg")
        register_image_folders(f"folders_{place}", tmp_path / place)
    one, moved, other = (dataset_version(f"folders_{place}") for place in ("one", "moved", "other"))
    assert one == moved != other and one["images"] == 2


def test_a_version_of_narratives_in_parts_is_of_all_parts(scenes, tmp_path, forget):
    lines = (
        (scenes / "annotations" / "narratives_train.jsonl").read_text().splitlines(keepends=True)
    )
    for place in ("whole", "changed"):
        (tmp_path / place).mkdir()
        for part in (0, 1):
            text = "".join(lines[part::2]) + "\n" * (place == "changed" and part == 1)
            (tmp_path / place / f"train-0000{part}-of-00002.jsonl").write_text(text)
        register_narratives(
            f"narratives_{place}", tmp_path / place / "train-*-of-*.jsonl", scenes / "train"
        )
    whole, changed = dataset_version("narratives_whole"), dataset_version("narratives_changed")
    assert whole["images"] == 12 and whole["sha256"] != changed["sha256"]


def test_a_version_of_shards_is_of_their_names_and_sizes(tmp_path, write_shard, forget):
    for place, counts in (("one", (2, 3)), ("moved", (2, 3)), ("other", (2, 40))):
        (tmp_path / place).mkdir()
        for number, count in enumerate(counts):
            write_shard(tmp_path / place / f"{number}.tar", count)
    one, moved, other = (
        dataset_version(f"shards:{tmp_path}/{place}/*.tar") for place in ("one", "moved", "other")
    )
    assert one == moved and one["images"] == 0
    assert one["sha256"] != other["sha256"]


def test_pairs_and_data_sets_of_ones_own_are_known_by_what_was_loaded(
    tmp_path, photo, register, example
):
    for place, caption in (("one", "a dog"), ("moved", "a dog"), ("other", "a cat")):
        (tmp_path / place).mkdir()
        shutil.copy(photo, tmp_path / place / "1.jpg")
        (tmp_path / place / "1.txt").write_text(caption)
    one, moved, other = (
        dataset_version(f"pairs:{tmp_path}/{place}") for place in ("one", "moved", "other")
    )
    assert one == moved != other
    plain = dataset_version(register([example], "version_own"))
    example["annotations"][0]["bbox"][0] += 1
    assert plain["images"] == 1 and plain != dataset_version(
        register([example], "version_own_changed")
    )


def test_masks_as_arrays_are_hashed_to_their_last_value(register, example):
    example["annotations"][0]["segmentation"] = np.zeros((40, 60))
    plain = dataset_version(register([example], "version_array"))
    example["annotations"][0]["segmentation"][20, 30] = 1
    assert plain != dataset_version(register([example], "version_array_changed"))


def test_a_version_is_read_once_per_process_and_a_known_size_is_not_loaded_again(
    scenes, monkeypatch, forget
):
    register_coco_instances(
        "version_once", {}, str(scenes / "annotations/instances_val.json"), str(scenes / "val")
    )
    remember_size("version_once", len(load_dataset("version_once")))
    monkeypatch.setattr("virtex_det.data.datasets.versions.load_dataset", None)
    first = dataset_version("version_once")
    first["images"] = 0
    monkeypatch.setattr("virtex_det.data.datasets.versions.hashlib", None)
    assert dataset_version("version_once")["images"] == 4


def test_a_missing_annotation_file_is_an_error_that_names_it():
    with pytest.raises(UserError, match=r"instances_val2017\.json"):
        dataset_version("coco_2017_val")


def test_versions_of_the_real_samples(samples, forget):
    register_pascal_voc("version_voc_mini", str(samples / "voc_mini/VOC2007"), "trainval", 2007)
    assert dataset_version("version_voc_mini")["images"] == 65
