import json
import os

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_pascal_voc

from tests.data.datasets.test_voc import XML
from virtex_det.data.datasets import load_dataset
from virtex_det.errors import UserError

NAME = "test_annotation_files"


@pytest.fixture(autouse=True)
def _forget():
    yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.pop(NAME, None)


def coco():
    images = [{"id": k, "file_name": f"{k}.jpg", "height": 9, "width": 9} for k in (1, 2)]
    annotations = [
        {"id": k, "image_id": k, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}
        for k in (1, 2)
    ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "nut"}]}


def load_coco(folder, content):
    path = folder / "instances.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    register_coco_instances(NAME, {}, str(path), str(folder))
    return load_dataset(NAME)


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_two_exports_put_together_lose_nothing_in_silence(part, tmp_path):
    content = coco()
    content[part] += coco()[part]
    with pytest.raises(
        UserError, match=r"instances\.json: .* id 1 occurs twice(?s:.*)Renumber|Each category"
    ):
        load_coco(tmp_path, content)


def test_a_name_that_an_entry_has_twice_is_refused(tmp_path):
    text = json.dumps(coco()).replace('"image_id": 2', '"image_id": 2, "image_id": 1')
    with pytest.raises(UserError, match="'image_id' twice"):
        load_coco(tmp_path, text)


def test_a_file_without_repeats_loads_as_before(tmp_path):
    assert [entry["image_id"] for entry in load_coco(tmp_path, coco())] == [1, 2]


def test_a_function_of_the_users_own_is_held_to_ids_that_differ():
    DatasetCatalog.register(NAME, lambda: [{"file_name": f"{k}.jpg", "image_id": 3} for k in "ab"])
    with pytest.raises(UserError, match="image id 3 occurs twice"):
        load_dataset(NAME)


@pytest.fixture
def voc(tmp_path):
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("000001\n000002\n")
    for image in ("000001", "000002"):
        (tmp_path / "Annotations" / f"{image}.xml").write_text(XML)
    register_pascal_voc(NAME, str(tmp_path), "train", 2007, ("cat", "dog"))
    return tmp_path


def test_whole_voc_data_load_as_before(voc):
    assert [entry["image_id"] for entry in load_dataset(NAME)] == ["000001", "000002"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (XML[:-30], r"000002\.xml is not XML"),
        (XML.replace("cat", "yeti"), r"000002\.xml: object 1 is 'yeti'"),
        (XML.replace(">cat<", "> cat <"), r"000002\.xml: object 1 is ' cat '"),
        (XML.replace("<xmax>20", "<xmax>x"), r"000002\.xml: object 1 \(cat\) has xmax 'x'"),
        (XML.replace("<height>60</height>", ""), r"000002\.xml has no height"),
        (XML.replace("<xmax>20", "<xmax>2"), r"000002\.xml: object 1 \(cat\) has the reversed box"),
        (XML.replace("<xmax>20", "<xmax>2_0"), r"000002\.xml: object 1 \(cat\) has xmax '2_0'"),
        (None, r"000002\.xml is missing"),
    ],
)
def test_what_is_wrong_in_voc_names_the_xml_file_and_the_object(voc, content, message):
    path = voc / "Annotations/000002.xml"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_dataset(NAME)


def test_a_class_that_voc_is_registered_with_twice_is_named(voc):
    MetadataCatalog.get(NAME).thing_classes[:] = ["cat", "cat"]
    with pytest.raises(UserError, match="is registered with the class 'cat' twice"):
        load_dataset(NAME)


def test_a_pipe_in_voc_is_not_waited_for(voc):
    (voc / "Annotations/000001.xml").unlink()
    os.mkfifo(voc / "Annotations/000001.xml")
    with pytest.raises(UserError, match="not a regular file"):
        load_dataset(NAME)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("000001\n000001\n", "names an image twice"),
        ("000001 1\n", "line 1 is"),
        ("000001\n", "has one image"),
        ("\ufeff000001\n000002\n", "byte order mark"),
    ],
)
def test_image_sets_that_detectron2_would_misread_are_refused(voc, lines, message):
    (voc / "ImageSets/Main/train.txt").write_text(lines)
    with pytest.raises(UserError, match=message):
        load_dataset(NAME)


def test_a_byte_order_mark_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match="byte order mark(?s:.*)sed"):
        load_coco(tmp_path, "\ufeff" + json.dumps(coco()))


def test_a_function_of_the_users_own_may_read_a_form_of_its_own(tmp_path):
    (tmp_path / "lines.json").write_text("{}\n{}")
    DatasetCatalog.register(NAME, lambda: [{"file_name": "1.jpg", "image_id": 1}])
    MetadataCatalog.get(NAME).set(json_file=str(tmp_path / "lines.json"))
    assert len(load_dataset(NAME)) == 1
