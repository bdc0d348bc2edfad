import json

import pytest

from tests.data.datasets.conftest import coco_content, voc_xml
from virtex_det.data.datasets import load_dataset
from virtex_det.errors import UserError
from virtex_det.own_data.conversion import convert, readable_name


@pytest.fixture
def read_again(tmp_path):
    """Writes what was converted, and loads it as COCO's."""

    def read(converted):
        file = tmp_path / "converted.json"
        file.write_text(json.dumps(converted.content))
        return load_dataset(f"coco:{file}:{converted.image_root}")

    return read


def without_ids(dicts):
    return [{key: value for key, value in entry.items() if key != "image_id"} for entry in dicts]


def test_yolo_and_voc_give_the_same_images_and_objects_as_coco(yolo, voc, read_again):
    polygon = "1 0.1 0.1 0.5 0.1 0.3 0.7"
    name = yolo({"a.jpg": "0 0.5 0.5 0.2 0.3\n" + polygon, "b.jpg": None})
    dicts = load_dataset(name)
    assert without_ids(read_again(convert(name))) == without_ids(dicts)
    assert [entry["image_id"] for entry in read_again(convert(name))] == [1, 2]


def test_difficult_objects_of_voc_stay_difficult(voc, read_again):
    name = voc({"a": voc_xml([("cat", (1, 1, 20, 20))], difficult=1)})
    assert without_ids(read_again(convert(name))) == without_ids(load_dataset(name))
    assert convert(name).content["annotations"][0]["difficult"] == 1


def test_a_part_has_only_its_images_and_their_objects(coco):
    name = coco(coco_content())
    part = convert(name, [2]).content
    assert [image["id"] for image in part["images"]] == [2]
    assert [entry["id"] for entry in part["annotations"]] == [3]
    assert part["categories"] == coco_content()["categories"]
    assert convert(name).content["annotations"] == coco_content()["annotations"]


def test_a_broken_image_is_left_out_and_counted(yolo, tmp_path):
    label = "0 0.5 0.5 0.2 0.2"
    name = yolo({"a.jpg": label, "b.jpg": label})
    (tmp_path / "images" / "train" / "a.jpg").write_bytes(b"no image")
    converted = convert(name)
    assert [image["file_name"] for image in converted.content["images"]] == ["images/train/b.jpg"]
    assert "1 images that cannot be read are left out" in converted.notes


def test_a_registered_set_is_known_by_its_file(scenes):
    name = readable_name("scenes_val")
    assert name.startswith("coco:") and len(convert(name).content["images"]) == 4


def test_data_without_labels_or_without_a_file_are_refused(write_image, tmp_path, catalog, scenes):
    write_image(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="no labels"):
        readable_name(f"folder:{tmp_path}")
    with pytest.raises(UserError, match="without an annotation file"):
        readable_name("scenes_train_captions")
