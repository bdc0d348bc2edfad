import copy
import json
import logging

import pytest
from detectron2.data import MetadataCatalog

from tests.data.datasets.conftest import coco_content
from virtex_det.data.datasets import load_dataset
from virtex_det.data.datasets.by_name import read_found
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.results_file import read_ground_truth


@pytest.fixture
def changed(coco):
    """Writes the small file after a function has changed its content; returns name and notes."""

    def write(change):
        content = copy.deepcopy(coco_content())
        change(content)
        name = coco(content)
        load_dataset(name)
        return name, " | ".join(read_found(name).notes)

    return write


def of_each(field, value=None):
    """Return a change of all annotations: a field set, or removed where the value is None."""

    def change(content):
        for entry in content["annotations"]:
            if value is None:
                del entry[field]
            else:
                entry[field] = value(entry) if callable(value) else value

    return change


def test_a_plain_file_has_no_notes(changed):
    assert changed(lambda content: None)[1] == ""


def test_label_studios_file_names_are_found(changed, tmp_path):
    def change(content):
        for image in content["images"]:
            image["file_name"] = f"..\\..\\label-studio\\media\\upload\\1\\{image['file_name']}"
        for entry in content["annotations"]:
            entry["ignore"], entry["segmentation"] = 0, []

    name, notes = changed(change)
    assert load_dataset(name)[1]["file_name"] == f"{tmp_path}/images/b.jpg"
    assert "2 images have backslashes" in notes and "are found in another folder below" in notes


def test_a_file_name_that_several_folders_have_is_left_to_the_check_of_missing_files(
    changed, write_image, tmp_path
):
    write_image(tmp_path / "images" / "sub" / "a.jpg")
    name, _ = changed(lambda content: content["images"][0].update(file_name="old/a.jpg"))
    assert load_dataset(name)[0]["file_name"] == f"{tmp_path}/images/old/a.jpg"


def test_a_missing_area_is_that_of_the_mask_and_a_missing_crowd_is_none(changed):
    def change(content):
        of_each("area")(content)
        of_each("iscrowd")(content)
        content["annotations"][0]["segmentation"] = [[10, 5, 30, 5, 30, 15]]
        del content["annotations"][1]["segmentation"]

    name, notes = changed(change)
    truth = read_ground_truth(name)
    assert [entry["area"] for entry in truth.annotations_of(1)] == [100, 128]
    assert "3 annotations have no valid area" in notes and "3 annotations have no iscrowd" in notes


def test_a_flat_polygon_of_via_is_nested(changed):
    name, notes = changed(of_each("segmentation", lambda entry: entry["segmentation"][0]))
    assert load_dataset(name)[0]["annotations"][0]["segmentation"] == [
        [10, 5, 30, 5, 30, 15, 10, 15]
    ]
    assert "3 annotations have one polygon as a flat list" in notes


def test_an_empty_polygon_is_no_mask(changed):
    name, notes = changed(of_each("segmentation", [[]]))
    assert all("segmentation" not in found for found in load_dataset(name)[0]["annotations"])
    assert "3 annotations have an empty mask" in notes


@pytest.mark.parametrize(
    "mask",
    [[[10, 5, 30, 5, 30, 15]], {"size": [40, 60], "counts": [405, 10] + [30, 10] * 19 + [1225]}],
)
def test_a_missing_box_is_that_of_the_mask(mask, changed):
    def change(content):
        content["annotations"][0]["segmentation"] = mask
        content["annotations"][0]["bbox"] = []

    name, notes = changed(change)
    assert load_dataset(name)[0]["annotations"][0]["bbox"] == [10, 5, 20, 10]
    assert "1 annotations have no bbox" in notes


def test_whole_numbers_written_as_floats_are_read(changed):
    def change(content):
        for entry in content["annotations"]:
            entry["category_id"], entry["iscrowd"] = float(entry["category_id"]), False
        for image in content["images"]:
            image["height"], image["id"] = float(image["height"]), float(image["id"])
        content["categories"][0]["id"] = 1.0

    name, notes = changed(change)
    assert [entry["image_id"] for entry in load_dataset(name)] == [1, 2]
    assert read_ground_truth(name).sizes.tolist() == [[40, 60], [40, 60]]
    assert "3 annotations have whole numbers written as 1.0 or True" in notes


def test_ids_as_text_of_numbers_find_their_owners(changed):
    name, notes = changed(of_each("image_id", lambda entry: str(entry["image_id"])))
    assert [len(entry["annotations"]) for entry in load_dataset(name)] == [2, 1]
    assert "3 annotations name an id as text" in notes


def test_images_with_text_ids_keep_them_and_are_measured(changed):
    def change(content):
        names = {1: "left", 2: "right"}
        for image in content["images"]:
            image["id"] = names[image["id"]]
        of_each("image_id", lambda entry: names[entry["image_id"]])(content)
        for category in content["categories"]:
            category["id"] = category["name"]
        of_each("category_id", lambda entry: ["nut", "bolt"][entry["category_id"] - 1])(content)

    name, _ = changed(change)
    assert [entry["image_id"] for entry in load_dataset(name)] == ["left", "right"]
    assert MetadataCatalog.get(name).thing_classes == ["bolt", "nut"]  # in the order of their ids
    truth = read_ground_truth(name)
    assert len(truth.annotations_of(truth.image_key("left"))) == 2


def test_annotations_without_ids_are_numbered(changed):
    _, notes = changed(of_each("id"))
    assert "none of 3 annotations has an id" in notes


@pytest.mark.parametrize("value", [None, 0])
def test_missing_sizes_are_read_from_the_images(value, changed):
    def change(content):
        for image in content["images"]:
            image["width"] = value

    name, notes = changed(change)
    assert [(entry["height"], entry["width"]) for entry in load_dataset(name)] == [(40, 60)] * 2
    assert "2 images have no height or width" in notes


def test_missing_sizes_of_missing_images_are_an_error(changed):
    with pytest.raises(UserError, match="1 images have no height or width, and 1 of these cannot"):
        changed(lambda content: content["images"][0].update(width=0, file_name="c.jpg"))


def test_roboflows_group_and_labelmes_background_are_pointed_out(changed):
    def change(content):
        for category in content["categories"]:
            category["supercategory"] = "parts"
        content["categories"] += [
            {"id": 0, "name": "parts", "supercategory": "none"},
            {"id": 3, "name": "_background_", "supercategory": None},
        ]

    name, notes = changed(change)
    assert MetadataCatalog.get(name).thing_classes == ["parts", "nut", "bolt", "_background_"]
    assert "'parts' has no objects and looks like the group of the others" in notes
    assert "'_background_' has no objects and looks like the background" in notes
    assert """DATASETS.CLASSES ["*", ["", 'parts']]""" in notes


def test_masks_that_cvat_marks_as_crowds_are_pointed_out(changed):
    def change(content):
        for entry in content["annotations"][:2]:
            entry["iscrowd"] = 1
            entry["segmentation"] = {"size": [40, 60], "counts": [0, 30, 2370]}

    assert "2 of 3 annotations are crowds (iscrowd 1), as CVAT" in changed(change)[1]


def test_polygons_beyond_their_image_are_counted(changed):
    def change(content):
        content["annotations"][2]["segmentation"] = [[0, 0, 90, 0, 90, 40]]

    name, notes = changed(change)
    assert "1 of 3 checked polygons reach beyond their image, the first of annotation 3" in notes
    assert load_dataset(name)[1]["annotations"][0]["segmentation"] == [[0, 0, 90, 0, 90, 40]]


@pytest.mark.parametrize(
    ("content", "form"),
    [
        ({"_via_img_metadata": {}}, "VIA's own format"),
        ({"a.jpg123": {"filename": "a.jpg", "regions": [], "size": 123}}, "VIA's own format"),
        ({"shapes": [], "imagePath": "a.jpg"}, "labelme's file of one image"),
        ({"images": [], "annotations": [{"caption": "a nut"}]}, "captions:FILE.json:IMAGES"),
        ({"images": [], "annotations": [{"segments_info": []}]}, "panoptic annotations"),
        ({"cat": "cat.n.01"}, 'no "images"'),
        ([{"image_id": 1, "score": 0.5}], "it is detections"),
        ([{"id": 1, "data": {}, "annotations": []}], "Label Studio's own format"),
        ([1, 2], "not in COCO's format"),
        ({"images": 3, "annotations": []}, 'its "images" is not a list'),
        ({"annotations": [], "categories": []}, 'it has no "images"'),
    ],
)
def test_files_of_another_form_are_refused_by_its_name(content, form, coco):
    with pytest.raises(UserError, match=form) as error:
        load_dataset(coco(content))
    assert len(str(error.value).splitlines()) < 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of_each("bbox"), "annotation 2 has no bbox"),
        (of_each("category_id", "washer"), "category_id 'washer'"),
        (of_each("category_id", 1.5), "category_id 1.5"),
        (of_each("bbox", "10 5 20 10"), "has the box '10 5 20 10'"),
        (of_each("segmentation", "0 0 1 1"), "has segmentation '0 0 1 1'"),
        (of_each("id", 1), "annotation id 1 occurs twice"),
        (of_each("iscrowd", "yes"), "iscrowd 'yes'"),
        (lambda content: content["annotations"].append(None), "annotation 3 of the list"),
    ],
)
def test_what_has_no_reading_is_refused_with_its_entry(change, message, changed):
    def all_changed(content):
        change(content)
        content["annotations"][1].pop("segmentation", None)

    with pytest.raises(UserError, match=message) as error:
        changed(all_changed)
    assert "instances.json" in str(error.value)


@pytest.mark.parametrize("field", ["bbox", "area"])
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"size": [40], "counts": "3"}, "expected polygons, or"),
        ({"size": [40, 60], "counts": [1, 2]}, "runs do not add up"),
        ({"size": [40, 60], "counts": "bad"}, "annotation 1 has a"),
    ],
)
def test_a_mask_that_cannot_be_measured_is_refused(mask, message, field, changed):
    def change(content):
        del content["annotations"][0][field]
        content["annotations"][0]["segmentation"] = mask

    with pytest.raises(UserError, match=f"instances.json cannot be used: .*{message}"):
        changed(change)


def test_an_area_that_is_no_number_is_replaced(changed):
    name, notes = changed(of_each("area", "25"))
    assert read_ground_truth(name).annotations_of(2)[0]["area"] == 2400
    assert "3 annotations have no valid area" in notes


def test_a_file_is_not_changed_and_is_read_the_same_again(coco, tmp_path, caplog):
    content = coco_content()
    of_each("area")(content)
    name = coco(content)
    before = (tmp_path / "instances.json").read_text()
    with caplog.at_level(logging.WARNING):
        assert load_dataset(name) == load_dataset(name)
    assert (tmp_path / "instances.json").read_text() == before == json.dumps(content)
    assert caplog.text.count("have no valid area") == 1
