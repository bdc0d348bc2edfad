import copy
import json
import logging

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from virtex_det.data.datasets import load_dataset
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.ground_truth import (
    GroundTruth,
    annotation_file,
    class_ids,
    read_truth,
)

COCO = {
    "images": [{"id": 9, "height": 20, "width": 30}, {"id": 4, "height": 40, "width": 50}],
    "annotations": [
        {
            "id": 1,
            "image_id": 9,
            "category_id": 7,
            "bbox": [1.0, 2.0, 3.0, 4.0],
            "area": 12.0,
            "iscrowd": 0,
        },
        {
            "id": 2,
            "image_id": 9,
            "category_id": 5,
            "bbox": [1.0, 2.0, 3.0, 4.0],
            "area": 12.0,
            "iscrowd": 1,
        },
    ],
    "categories": [{"id": 7, "name": "cat"}, {"id": 5, "name": "dog"}],
}


def lvis():
    content = copy.deepcopy(COCO)
    for image in content["images"]:
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": [7]}
    for category in content["categories"]:
        category["frequency"] = "r"
    for annotation in content["annotations"]:
        del annotation["iscrowd"]
    return content


def changed(part, place, content=COCO, **values):
    content = copy.deepcopy(content)
    content[part][place] |= values
    return content


def lacking(part, place, name, content=COCO):
    content = copy.deepcopy(content)
    del content[part][place][name]
    return content


def test_images_categories_and_objects_are_found_by_their_ids():
    truth = GroundTruth(COCO, "coco")
    assert list(truth.images) == [4, 9] and truth.image_ids.tolist() == [4, 9]
    assert [entry["id"] for entry in truth.annotations_of(9)] == [1, 2] and len(
        truth.annotations_of(4)
    ) == 0
    assert truth.sizes_of(np.array([9, 4, 9])).tolist() == [[20, 30], [40, 50], [20, 30]]
    assert truth.category_names == {5: "dog", 7: "cat"} and truth.category_ids.tolist() == [5, 7]
    assert truth.image_key("9") == 9 and truth.has_annotations


def test_categories_of_one_name_are_told_apart():
    truth = GroundTruth(changed("categories", 1, name="cat"), "coco")
    assert truth.category_names == {5: "cat (5)", 7: "cat (7)"}


def test_masks_are_there_when_every_object_has_one():
    both = changed("annotations", 0, segmentation=[[0, 0, 5, 0, 5, 5]])
    assert not GroundTruth(both, "coco").has_masks
    both["annotations"][1]["segmentation"] = {"size": [20, 30], "counts": [600]}
    assert GroundTruth(both, "coco").has_masks
    with pytest.raises(UserError, match="annotation 2 has no segmentation"):
        GroundTruth(
            changed("annotations", 0, segmentation=[[0, 0, 5, 0, 5, 5]]), "coco"
        ).check_masks()


@pytest.mark.parametrize(
    "area, what", [(0, "1 x area 0 of a box that is not empty"), (1e6, "1 x area larger than its")]
)
def test_an_area_that_cannot_be_is_counted(area, what, caplog):
    GroundTruth(changed("annotations", 0, area=area), "coco")
    assert what in caplog.text and "APs, APm and APl" in caplog.text


@pytest.mark.parametrize(
    "name",
    [
        "coco_mini/annotations/instances_val2017.json",
        "coco_mini/annotations/instances_train2017.json",
    ],
)
def test_real_coco_needs_no_warning(samples, name, caplog):
    with caplog.at_level(logging.WARNING):
        truth = GroundTruth.read(samples / name, "coco")
        truth.check_masks()
    assert truth.has_masks and not caplog.records


def test_real_lvis_has_its_sets_and_masks(samples):
    truth = GroundTruth.read(samples / "lvis_100" / "annotations" / "lvis_val_100.json", "lvis")
    truth.check_masks()
    assert len(truth.images) == 100 and len(truth.categories) == 1230 and truth.has_masks


def test_images_whose_answers_nobody_has_can_be_read():
    truth = GroundTruth({name: COCO[name] for name in ("images", "categories")}, "coco")
    assert not truth.has_annotations and len(truth.images) == 2


BROKEN = {
    "a repeated annotation id": (changed("annotations", 1, id=1), "annotation id 1 occurs twice"),
    "a repeated image id": (changed("images", 1, id=9), "image id 9 occurs twice"),
    "a repeated category id": (changed("categories", 1, id=7), "category id 7 occurs twice"),
    "an id that is text": (changed("annotations", 1, id="x"), "annotation has id 'x'"),
    "a negative id": (changed("annotations", 1, id=-3), "annotation has id -3"),
    "an unknown image": (changed("annotations", 1, image_id=8), "annotation 2 has image 8"),
    "an unknown category": (
        changed("annotations", 1, category_id=8),
        "annotation 2 has category 8",
    ),
    "no area": (lacking("annotations", 1, "area"), "annotation 2 has no area"),
    "no iscrowd": (lacking("annotations", 1, "iscrowd"), "annotation 2 has no iscrowd"),
    "no box": (lacking("annotations", 1, "bbox"), "annotation 2 has no bbox"),
    "no height": (lacking("images", 1, "height"), "image 4 has no height"),
    "a height of 0": (changed("images", 1, height=0), "image 4 has width 50 and height 0"),
    "a box of NaN": (
        changed("annotations", 1, bbox=[1.0, float("nan"), 3.0, 4.0]),
        "annotation 2 has the box",
    ),
    "a box of text": (changed("annotations", 1, bbox="1 2 3 4"), "annotation 2 has bbox '1 2 3 4'"),
    "an area of NaN": (changed("annotations", 1, area=float("nan")), "annotation 2 has area nan"),
    "a negative area": (changed("annotations", 1, area=-1.0), "annotation 2 has area -1.0"),
    "no images": (
        {**COCO, "images": [], "annotations": []},
        "there are no images or no categories",
    ),
    "an image id that is text": (
        changed("annotations", 1, image_id="9"),
        "annotation 2 has image_id '9'",
    ),
    "half an image id": (changed("annotations", 1, image_id=9.5), "annotation 2 has image_id 9.5"),
    "a category id of None": (
        changed("annotations", 1, category_id=None),
        "annotation 2 has category_id None",
    ),
    "an id that floats cannot tell": (
        changed("images", 1, id=2**53 + 1),
        "image has id 9007199254740993",
    ),
    "an iscrowd of text": (
        changed("annotations", 1, iscrowd="0"),
        "annotation 2 has iscrowd '0'; expected 0 or 1",
    ),
    "an image that is not a dict": (
        {**COCO, "images": [None]},
        "image 0 of the list is None; expected fields id, height",
    ),
    "an annotation that is not a dict": (
        {**COCO, "annotations": [3]},
        "annotation 0 of the list is 3",
    ),
    "a name that is not text": (
        changed("categories", 1, name=None),
        "category 5 has name None; expected text",
    ),
    "a height beyond any image": (
        changed("images", 1, height=2**63),
        "image 4 has width 50 and height 9223372036854775808",
    ),
    "no lists": ({"images": 3}, "these are not annotations"),
    "a panoptic file": (
        {"images": [], "annotations": [{"segments_info": []}], "categories": []},
        "the file is of panoptic segmentation: its annotations have segments_info",
    ),
    "a results file": ([], "these are not annotations; expected the lists images"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_it_is_an_error_to_have(case):
    content, message = BROKEN[case]
    with pytest.raises(UserError, match=f"annotations.json: {message}"):
        GroundTruth(content, "coco", "annotations.json")


BROKEN_LVIS = {
    "no negative set": (
        lacking("images", 1, "neg_category_ids", lvis()),
        "image 4 has no neg_category_ids",
    ),
    "no not-exhaustive set": (
        lacking("images", 1, "not_exhaustive_category_ids", lvis()),
        "image 4 has no not_exhaustive_category_ids",
    ),
    "a set of None": (
        changed("images", 1, lvis(), neg_category_ids=None),
        "image 4 has neg_category_ids None",
    ),
    "a set of text": (
        changed("images", 1, lvis(), not_exhaustive_category_ids=["7"]),
        "image 4 has in not_exhaustive_category_ids '7'",
    ),
    "a set of other categories": (
        changed("images", 1, lvis(), neg_category_ids=[99]),
        "image 4 has in neg_category_ids 99, which the 2 categories do not have",
    ),
    "no frequency": (lacking("categories", 1, "frequency", lvis()), "category 5 has no frequency"),
    "a frequency of its own": (
        changed("categories", 1, lvis(), frequency="often"),
        "category 5 has frequency 'often'",
    ),
    "objects to ignore": (
        changed("annotations", 1, lvis(), ignore=1),
        "annotation 2 has ignore set",
    ),
}


@pytest.mark.parametrize("case", BROKEN_LVIS)
def test_it_is_an_error_of_lvis_to_have(case):
    content, message = BROKEN_LVIS[case]
    with pytest.raises(UserError, match=message):
        GroundTruth(content, "lvis")


def test_boxes_that_leave_the_image_and_negative_ones_are_counted(caplog):
    content = changed("annotations", 0, bbox=[28.0, 0.0, 8.0, 4.0])
    content["annotations"][1]["bbox"] = [9.0, 9.0, -4.0, 4.0]
    with caplog.at_level(logging.WARNING):
        GroundTruth(content, "coco")
    assert (
        "1 x box of negative width" in caplog.text
        and "1 x box more than 1 pixel outside" in caplog.text
    )


def test_an_unknown_style_is_an_error():
    with pytest.raises(
        UserError, match="the style of annotations is 'voc'; expected one of: coco, lvis"
    ):
        GroundTruth(COCO, "voc")


def test_a_file_that_is_absent_or_cut_short_is_an_error(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        GroundTruth.read(tmp_path / "nowhere.json", "coco")
    (tmp_path / "cut.json").write_text(json.dumps(COCO)[:-9])
    with pytest.raises(UserError, match="is not JSON"):
        GroundTruth.read(tmp_path / "cut.json", "coco")


def test_image_names_are_not_ids():
    with pytest.raises(UserError, match="image '2007_000x' is not in"):
        GroundTruth(COCO, "coco").image_key("2007_000x")


def test_truth_is_read_from_the_datasets_own_file(scenes, tmp_path):
    truth = read_truth("scenes_val", tmp_path)
    content = json.loads((scenes / "annotations" / "instances_val.json").read_text())
    assert set(truth.images) == {image["id"] for image in content["images"]}
    assert annotation_file("scenes_val", tmp_path) == str(
        scenes / "annotations" / "instances_val.json"
    )


def test_a_dataset_without_a_file_gets_one_of_its_dicts_as_they_are_now(tmp_path):
    dicts = [{"file_name": "", "image_id": 1, "height": 10, "width": 10, "annotations": []}]
    DatasetCatalog.register("dicts_without_a_file", lambda: dicts)
    MetadataCatalog.get("dicts_without_a_file").set(evaluator_type="coco", thing_classes=["a"])
    assert len(read_truth("dicts_without_a_file", tmp_path).annotations_of(1)) == 0
    box = {"bbox": [0, 0, 5, 5], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    dicts[0]["annotations"].append(box)
    assert len(read_truth("dicts_without_a_file", tmp_path).annotations_of(1)) == 1


def test_real_samples_of_every_kind_are_read(samples, tmp_path):
    folder = samples / "voc_mini" / "VOC2007"
    MetadataCatalog.get("voc_of_truth").set(
        dirname=str(folder),
        split="test",
        year=2007,
        thing_classes=["cat", "dog"],
        evaluator_type="pascal_voc",
    )
    assert len(read_truth("voc_of_truth", tmp_path).images) == 35
    lvis = samples / "lvis_100" / "annotations" / "lvis_val_9_with_images.json"
    MetadataCatalog.get("lvis_of_truth").set(json_file=str(lvis), evaluator_type="lvis")
    assert read_truth("lvis_of_truth", tmp_path).has_masks


def test_classes_have_the_ids_of_the_annotation_file(scenes):
    load_dataset("scenes_val")
    content = json.loads((scenes / "annotations" / "instances_val.json").read_text())
    assert class_ids(MetadataCatalog.get("scenes_val")).tolist() == sorted(
        c["id"] for c in content["categories"]
    )
    assert class_ids(MetadataCatalog.get("coco_2017_val"))[[0, 11, 79]].tolist() == [1, 13, 90]


def test_without_a_mapping_lvis_counts_from_one_and_others_from_zero():
    for kind, wanted in (("lvis", [1, 2, 3]), ("coco", [0, 1, 2]), ("pascal_voc", [0, 1, 2])):
        MetadataCatalog.get(f"unmapped_{kind}").set(
            evaluator_type=kind, thing_classes=["a", "b", "c"]
        )
        assert class_ids(MetadataCatalog.get(f"unmapped_{kind}")).tolist() == wanted
