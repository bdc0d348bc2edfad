import numpy as np

from tests.data.datasets.conftest import coco_content
from virtex_det.own_data.survey import (
    images_without_objects,
    left_out,
    mask_keys,
    odd_objects,
    survey,
)


def with_boxes(*boxes, **changes):
    """Return COCO content whose first image has boxes of class nut, without masks."""
    objects = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "area": 1, "iscrowd": 0}
        for number, box in enumerate(boxes, start=1)
    ]
    return coco_content(annotations=objects, **changes)


def oddities(name):
    found = survey(name)
    return {odd.what: len(odd.places) for odd in odd_objects(found)}


def test_objects_are_counted_by_class_without_crowds(coco):
    content = coco_content()
    content["annotations"][1]["iscrowd"] = 1
    found = survey(coco(content))
    assert found.counts == {"nut": 1, "bolt": 1}
    assert found.objects.crowds.tolist() == [False, True, False]
    assert found.sizes.tolist() == [[40, 60], [40, 60]]
    assert np.allclose(found.objects.sides, [200**0.5, 2400**0.5])


def test_what_training_leaves_out_is_counted_by_reason(coco):
    content = with_boxes([0, 0, 9, 9], [5, 5, 0, 4], [70, 5, 4, 4], [1, 1, 5, 5])
    content["annotations"][0]["iscrowd"] = 1
    found = survey(coco(content))
    assert left_out(found) == {
        "annotations are crowds (iscrowd 1), which detectors do not train on": 1,
        "annotations have a box without width or height": 1,
        "annotations have a box outside their image": 1,
    }
    assert images_without_objects(found) == 1


def test_each_kind_of_odd_box_is_found_and_crowds_are_not(coco):
    content = with_boxes(
        *([0, 0, 60, 40], [10, 10, 1.5, 9], [20, 20, 5, 5], [20, 20, 5, 5]),
        *([10, 5, 45, 2], [50, 30, 20, 5], [30, 30, 5, 5], [30, 30, 5, 5]),
    )
    content["annotations"][7]["category_id"] = 2
    crowd = {"id": 9, "image_id": 2, "category_id": 1, "bbox": [0, 0, 60, 40], "iscrowd": 1}
    content["annotations"].append({**crowd, "area": 1})
    assert oddities(coco(content)) == {
        "as large as their image": 1,
        "less than 2 pixels wide or high": 1,
        "that repeat another one of their class": 1,
        "that an object of another class has, too": 1,
        "more than 20 times as long as wide": 1,
        "beyond their image": 1,
    }


def test_plain_boxes_are_not_odd(coco):
    assert oddities(coco(with_boxes([0, 0, 30, 20], [10, 10, 51, 20]))) == {}  # 1 pixel beyond


def test_boxes_alone_and_run_lengths_decide_the_masks(coco, yolo):
    boxes = yolo({"a.jpg": "0 0.5 0.5 0.2 0.2"})
    assert mask_keys([survey(boxes)]) == {"MODEL.MASK_ON": False}
    content = coco_content()
    assert mask_keys([survey(coco(content))])["INPUT.MASK_FORMAT"] == "polygon"
    content["annotations"][0]["segmentation"] = {"size": [40, 60], "counts": [0, 5, 2395]}
    lengths = coco(content)
    assert mask_keys([survey(lengths)])["INPUT.MASK_FORMAT"] == "bitmask"
    assert mask_keys([survey(lengths), survey(boxes)]) == {"MODEL.MASK_ON": False}


def test_images_without_labels_are_seen_as_such(write_image, tmp_path, catalog):
    write_image(tmp_path / "a.jpg")
    found = survey(f"folder:{tmp_path}")
    assert not found.is_labelled and found.counts == {} and np.isnan(found.sizes).all()


def test_warnings_of_the_reader_are_notes(yolo):
    found = survey(yolo({"a.jpg": "0 0.5 0.5 0.2 0.2", "b.jpg": None}))
    assert len(found.notes) == 1 and "1 of 2 images have no object" in found.notes[0]
