"""Dataset dicts are those of Detectron2's own readers, to the order of the keys."""

import copy
import json
import random

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import (
    load_coco_json,
    load_lvis_json,
    register_coco_instances,
    register_lvis_instances,
)

from virtex_det.data.datasets import load_dataset
from virtex_det.data.datasets.instances import make_dicts, registration_of
from virtex_det.errors import UserError

NAME, REFERENCE = "test_instances_v0.5", "test_instances_reference_v0.5"
READERS = {
    "coco": (register_coco_instances, load_coco_json),
    "lvis": (register_lvis_instances, load_lvis_json),
}


@pytest.fixture(autouse=True)
def _clean(tmp_path, monkeypatch):
    for folder in ("images", "a/b"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    yield
    for name in (NAME, REFERENCE):
        for catalog in (DatasetCatalog, MetadataCatalog):
            catalog.pop(name, None)


def assert_as_detectron2(json_file, style="coco", image_root="images/"):
    """Compare what is loaded with the standard reader's, as text as well: that shows the order
    of keys, and types.
    """
    register, load = READERS[style]
    register(NAME, {}, str(json_file), image_root)
    found, expected = load_dataset(NAME), load(str(json_file), image_root, REFERENCE)
    assert found == expected
    assert repr(found) == repr(expected)
    for key in ("thing_classes", "thing_dataset_id_to_contiguous_id", "class_image_count"):
        assert MetadataCatalog.get(NAME).get(key) == MetadataCatalog.get(REFERENCE).get(key)
    return found


def annotation(number, **changes):
    return {
        "id": number,
        "image_id": 1,
        "category_id": 3,
        "bbox": [1, 2.5, 5, 5],
        "area": 25,
        "iscrowd": 0,
    } | changes


def coco(annotations, images=None):
    images = images or [
        {"id": k, "file_name": f"{k}.jpg", "height": 20, "width": 30} for k in (2, 1)
    ]
    categories = [{"id": 7, "name": "nut"}, {"id": 3, "name": "bolt"}]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.mark.parametrize(
    "file", ["instances_train2017", "instances_val2017", "person_keypoints_val2017"]
)
def test_real_coco_loads_as_by_detectron2(samples, file):
    path = samples / f"coco_mini/annotations/{file}.json"
    dicts = assert_as_detectron2(path)
    kinds = {type(entry.get("segmentation")) for image in dicts for entry in image["annotations"]}
    assert kinds == {list, dict} or "keypoints" in file


def test_real_lvis_loads_as_by_detectron2(samples):
    assert_as_detectron2(samples / "lvis_100/annotations/lvis_val_100.json", "lvis")


def test_scenes_load_as_by_detectron2(scenes):
    assert_as_detectron2(
        scenes / "annotations/instances_train.json", image_root=str(scenes / "train")
    )


MASKS = (
    {},
    {"segmentation": []},
    {"segmentation": [[1, 1, 2, 1, 2, 2]]},
    {"segmentation": [[1, 1, 2, 1], [1.5, 1, 2, 1, 2, 2, 3, 3]]},
    {"segmentation": [[1, 1, 2, 1]]},
    {"segmentation": [[]]},
    {"segmentation": {"size": [20, 30], "counts": [100, 50, 450]}, "iscrowd": 1},
    {"segmentation": {"size": [20, 30], "counts": "T3f0"}},
)
OTHERS = (
    {},
    {"keypoints": [1, 2, 2, 0, 0, 0], "num_keypoints": 1},
    {"keypoints": []},
    {"ignore": 0},
    {"image_id": 9},
)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_file_holds_loads_as_by_detectron2(write, seed):
    rng = random.Random(seed)
    annotations = [
        annotation(k, image_id=rng.choice((1, 2)), category_id=rng.choice((3, 7)))
        | rng.choice(MASKS)
        | rng.choice(OTHERS)
        for k in rng.sample(range(90), 12)
    ]
    for entry in annotations:
        if rng.random() < 0.2:
            del entry["iscrowd"]
    assert_as_detectron2(
        write(coco(annotations)), image_root=rng.choice(("images", "images/", "./a//b", ""))
    )


@pytest.mark.parametrize("ids", [("b", "a", "é"), (2**53, 5, 0)])
def test_images_are_in_the_order_of_their_ids(write, ids):
    images = [{"id": k, "file_name": f"sub/{k}.jpg", "height": 20, "width": 30} for k in ids]
    dicts = assert_as_detectron2(write(coco([annotation(1, image_id=ids[0])], images)))
    assert [entry["image_id"] for entry in dicts] == sorted(ids)


def test_images_without_annotations_load_as_by_detectron2(write):
    content = coco([])
    del content["annotations"]
    assert_as_detectron2(write(content))


def test_what_was_parsed_stays_as_it_is(write):
    content = coco(
        [annotation(1, keypoints=[1, 2, 2]), annotation(2, **MASKS[6]), annotation(3, **MASKS[3])]
    )
    register_coco_instances(NAME, {}, str(write(content)), "images")
    before = copy.deepcopy(content)
    make_dicts(content, registration_of(NAME))
    assert content == before


def test_objects_without_a_polygon_come_with_their_boxes_where_boxes_alone_are_asked_for(
    write, caplog
):
    content = coco(
        [
            annotation(1, segmentation=[[1, 1, 2, 1]]),
            annotation(2, segmentation=[[1, 1, 2, 1, 2, 2]]),
        ]
    )
    register_coco_instances(NAME, {}, str(write(content)), "images")
    assert len(load_dataset(NAME)[0]["annotations"]) == 1
    assert "1 objects have no polygon of 3 points or more, the first is annotation 1" in caplog.text
    first, second = load_dataset(NAME, boxes_alone=True)[0]["annotations"]
    assert "segmentation" not in first and first["category_id"] == 0 and "segmentation" in second


def test_annotations_of_images_that_are_not_there_are_counted(write, caplog):
    register_coco_instances(
        NAME, {}, str(write(coco([annotation(1), annotation(2, image_id=9)]))), "images"
    )
    load_dataset(NAME)
    assert "1 annotations belong to no image" in caplog.text


def test_functions_of_others_are_called_and_not_replaced(write):
    path = str(write(coco([annotation(1)])))
    DatasetCatalog.register(NAME, lambda: load_coco_json(path, "images", NAME, ["area"]))
    assert registration_of(NAME) is None
    assert load_dataset(NAME)[0]["annotations"][0]["area"] == 25


def lvis_image(**changes):
    image = {"id": 1, "height": 20, "width": 30, "coco_url": "http://images/val2017/1.jpg"}
    return {"images": [image | changes], "annotations": [], "categories": []}


@pytest.mark.parametrize(
    ("style", "content", "message"),
    [
        ("coco", coco([annotation(4, ignore=1)]), "annotation 4 has ignore 1"),
        (
            "coco",
            coco([annotation(4, segmentation={"size": [1], "counts": [3]})]),
            "annotation 4 has segmentation",
        ),
        (
            "coco",
            coco([annotation(4, segmentation={"size": [3, 3], "counts": ["x"]})]),
            "annotation 4 has segmen",
        ),
        ("coco", coco([annotation(4)]) | {"categories": []}, "has no .categories"),
        ("lvis", lvis_image(coco_url=None), "image 1 has coco_url None"),
        (
            "lvis",
            lvis_image() | {"annotations": [annotation(4, segmentation=[[1, 2, 3]])]},
            "annotation 4 has segmentation",
        ),
    ],
)
def test_what_detectron2_would_stop_at_names_the_file_and_the_entry(write, style, content, message):
    READERS[style][0](NAME, {}, str(write(content)), "images/")
    with pytest.raises(UserError, match=rf"instances\.json(?s:.*){message}"):
        load_dataset(NAME)
