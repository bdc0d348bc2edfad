import copy
import logging

import numpy as np
import pycocotools.mask as mask_tools
import pytest
from detectron2.structures import BoxMode

from tests.engine.preflight.conftest import content
from virtex_det.data.datasets.objects import check_dicts, check_masks, check_objects, why_no_object
from virtex_det.errors import UserError

IMAGES = 20


def spoilt(change):
    """Return a file of 40 objects, changed."""
    changed = copy.deepcopy(content(IMAGES))
    change(changed)
    return changed


def first(part="annotations", **changes):
    return lambda content: content[part][0].update(changes)


def each(change):
    def change_all(content):
        for annotation in content["annotations"]:
            change(annotation)

    return change_all


def without(part, field):
    return lambda content: content[part][0].pop(field)


def as_corners(annotation):
    x, y, width, height = annotation["bbox"]
    annotation["bbox"] = [x, y, x + width, y + height]


def as_fractions(annotation):
    x, y, width, height = annotation["bbox"]
    annotation["bbox"] = [x / 60, y / 40, width / 60, height / 40]


def as_reversed(annotation):
    x, y, width, height = annotation["bbox"]
    annotation["bbox"] = [x + width, y + height, -width, -height]


REFUSED = {
    "no box": (
        without("annotations", "bbox"),
        "annotation 11 has no bbox; expected image_id, category_id, bbox",
    ),
    "no category": (without("annotations", "category_id"), "annotation 11 has no category_id"),
    "no height": (without("images", "height"), "image 1 has no height"),
    "no file name": (without("images", "file_name"), "image 1 has no file_name"),
    "height as text": (first("images", height="40"), "image 1 has height '40' and width 60"),
    "height of zero": (first("images", height=0), "image 1 has height 0"),
    "height NaN": (first("images", height=float("nan")), "image 1 has height nan"),
    "file name as number": (first("images", file_name=7), "image 1 has file_name 7; expected text"),
    "box as one text": (
        first(bbox="5,5,20,15"),
        r"annotation 11 \(image 1\) has the box '5,5,20,15'; expected four",
    ),
    "box of texts": (first(bbox=["5", "5", "20", "15"]), r"has the box \['5'"),
    "all boxes of texts": (
        each(lambda a: a.update(bbox=["5", "5", "9", "9"])),
        r"annotation 11 .* has the box \['5'",
    ),
    "box of three": (
        first(bbox=[5, 5, 20]),
        r"has the box \[5, 5, 20\]; expected four finite numbers",
    ),
    "all boxes of three": (each(lambda a: a.update(bbox=[5, 5, 20])), r"has the box \[5, 5, 20\]"),
    "box of five": (first(bbox=[5, 5, 20, 1, 0]), "expected four"),
    "box null": (first(bbox=None), "has the box None"),
    "box with null": (first(bbox=[5, None, 20, 15]), "expected four finite numbers"),
    "box with NaN": (first(bbox=[5, float("nan"), 20, 15]), "expected four finite numbers"),
    "box with infinity": (first(bbox=[5, 5, float("inf"), 15]), "expected four finite numbers"),
    "box nested": (first(bbox=[[5, 5, 20, 15]]), "expected four finite numbers"),
    "corners": (each(as_corners), "all would fit as corners: they look like .x1, y1"),
    "fractions": (
        each(as_fractions),
        "40 of 40 boxes lie between 0 and 1: they look like fractions",
    ),
    "all reversed": (each(as_reversed), "40 of 40 boxes have a negative width or height"),
    "flat polygon": (
        first(segmentation=[5, 5, 25, 5, 25, 20]),
        "a flat list: add another pair of brackets",
    ),
    "mask as text": (
        first(segmentation="5,5,25,5"),
        "annotation 11 has segmentation '5,5,25,5'; expected a list",
    ),
    "mask as number": (first(segmentation=3), "annotation 11 has segmentation 3"),
    "runs without size": (
        first(segmentation={"counts": [2400]}),
        "annotation 11 has segmentation {'counts'",
    ),
    "crowd as text": (first(iscrowd="0"), "annotation 11 has iscrowd '0'; expected 0 or 1"),
    "unknown category": (
        first(category_id=9),
        "annotation 11 has category_id 9, which the 2 categories",
    ),
    "category of another type": (first(category_id="1"), "annotation 11 has category_id '1'"),
    "category without name": (
        without("categories", "name"),
        "category 1 has name None; expected one line of text",
    ),
    "ids of images as text": (
        each(lambda a: a.update(image_id=str(a["image_id"]))),
        r"no annotation belongs to an image. The first one, 11, has image_id '1', but",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_trained_on_is_refused_with_file_and_entry(change, message):
    with pytest.raises(UserError, match=f"(?s)^train.json cannot be used: .*{message}"):
        check_objects(spoilt(change), "coco", "train.json")


ACCEPTED = {
    "as it should be": lambda content: None,
    "no annotation": lambda content: content["annotations"].clear(),
    "no masks": each(lambda a: a.pop("segmentation")),
    "empty masks": each(lambda a: a.update(segmentation=[])),
    "masks of no polygon": each(lambda a: a.update(segmentation=[[]])),
    "sizes with a point": each(lambda a: a.update(bbox=[float(value) for value in a["bbox"]])),
    "one box far outside": first(bbox=[50, 30, 500, 300]),
    "amodal boxes": each(
        lambda a: (
            a.update(bbox=[a["bbox"][0], a["bbox"][1], 100, 100]) if a["id"] % 3 == 0 else None
        )
    ),
    "boxes of the whole image": each(lambda a: a.update(bbox=[0, 0, 60, 40])),
    "no iscrowd, no area": each(lambda a: [a.pop("iscrowd"), a.pop("area")]),
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
def test_what_can_be_trained_on_passes(change):
    check_objects(spoilt(change), "coco", "train.json")


@pytest.mark.parametrize(
    ("box", "what"), [([5, 5, 0, 9], "no width or no height"), ([9, 9, -4, -4], "negative width")]
)
def test_a_single_box_that_training_leaves_out_is_said_once(box, what, caplog, request):
    large, source = copy.deepcopy(content(100)), request.node.name
    large["annotations"][3]["bbox"] = box
    with caplog.at_level(logging.WARNING):
        check_objects(large, "coco", source)
        check_objects(large, "coco", source)
    (record,) = caplog.records
    assert f"1 of 200 boxes have {'a ' * ('neg' in what)}{what}" in record.getMessage()
    assert "annotation 22 (image 2)" in record.getMessage()


def dicts(mode=BoxMode.XYXY_ABS, box=(5, 5, 25, 20)):
    annotation = {"bbox": list(box), "bbox_mode": mode, "category_id": 0}
    return [
        {
            "image_id": k,
            "file_name": f"{k}.png",
            "height": 40,
            "width": 60,
            "annotations": [dict(annotation)],
        }
        for k in range(20)
    ]


@pytest.mark.parametrize(
    "box", [(5, 5, 25, 20), np.array([5, 5, 25, 20.0])], ids=["tuple", "array"]
)
@pytest.mark.parametrize("mode", [BoxMode.XYXY_ABS, BoxMode.XYWH_ABS])
def test_boxes_of_a_function_pass_in_both_modes(mode, box):
    check_dicts(dicts(mode, box), "data set mine")


@pytest.mark.parametrize(
    ("mode", "box", "message"),
    [
        (
            None,
            (5, 5, 25, 20),
            "bbox_mode None; expected four numbers, and BoxMode.XYWH_ABS or XYXY_ABS",
        ),
        (
            BoxMode.XYXY_REL,
            (0.1, 0.1, 0.2, 0.2),
            "expected four numbers, and BoxMode.XYWH_ABS or XYXY_ABS",
        ),
        (
            BoxMode.XYXY_ABS,
            (30, 20, 10, 10),
            "boxes have x2 below x1 or y2 below y1: reversed corners, or x, y, width, height",
        ),
        (BoxMode.XYXY_ABS, (0.1, 0.1, 0.5, 0.5), "look like fractions"),
        (BoxMode.XYWH_ABS, (30, 20, 50, 35), "look like .x1, y1"),
        (BoxMode.XYWH_ABS, (5, 5, "a", 35), r"object 0 of image 0 \(0.png\) has the box"),
    ],
)
def test_boxes_of_a_function_that_are_none_are_refused(mode, box, message):
    with pytest.raises(UserError, match=f"(?s)^data set mine cannot be used: .*{message}"):
        check_dicts(dicts(mode, box), "data set mine")


def with_mask(mask, **changes):
    return [
        {"image_id": 3, "file_name": "3.png", "annotations": [{"segmentation": mask, **changes}]}
    ]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, "has no segmentation.\nFor boxes only, set MODEL.MASK_ON False"),
        (
            {"size": [4, 4], "counts": "abc"},
            "run-length encoded mask.\nSet INPUT.MASK_FORMAT bitmask",
        ),
        ([[1, 2, 3, 4]], r"has the polygon \[1, 2, 3, 4\]"),
        ([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7]], "has the polygon"),
        ([[1, 2, 3, 4, 5, float("nan")]], "expected finite"),
        ([[1, 2, 3, 4, 5, "6"]], "expected finite"),
        ([[1, 2, 3, 4, 5, None]], "expected finite"),
        ([], "empty list of polygons"),
        ([1, 2, 3, 4, 5, 6], "flat list .* another pair of brackets"),
        ([None], "has the polygon None"),
    ],
)
def test_a_mask_that_cannot_be_trained_on_names_the_image_and_the_object(mask, message):
    with pytest.raises(UserError, match=rf"object 0 of image 3 \(3.png\) {message}|{message}"):
        check_masks(with_mask(mask), "polygon")
    check_masks(with_mask(mask, iscrowd=1), "polygon")


def test_runs_go_with_bitmasks():
    runs = mask_tools.encode(np.asfortranarray(np.eye(4, dtype=np.uint8)))
    for mask in (
        runs,
        runs | {"counts": runs["counts"].decode()},
        {"size": [4, 4], "counts": [0, 16]},
    ):
        check_masks(with_mask(mask), "bitmask")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            {"size": [4, 4], "counts": b"04"},
            r"has a mask whose runs add up to 4 pixels; expected 4 x 4 = 16",
        ),
        ({"size": [4, 4], "counts": "~~"}, "has invalid characters"),
        ({"size": [4, 4], "counts": [0, 15]}, "has a mask whose runs do not add up"),
        ({"size": [4, 4], "counts": [-1, 17]}, "has a mask whose runs do not add up"),
        ({"size": [4, 4], "counts": ["0", "16"]}, "has a mask whose runs do not add up"),
        (
            {"size": [2, 8], "counts": [0, 16]},
            r"has a mask of size \[2, 8\]; expected \[\d+, \d+\], \[height, width\] of its image",
        ),
        ({"size": [4.0, 4.0], "counts": [0, 16]}, "has the mask"),
        ({"size": [4, 4]}, "has the mask"),
    ],
)
def test_runs_that_are_not_those_of_the_image_are_refused_in_training(mask, message):
    dicts = with_mask(mask)
    dicts[0].update(height=4, width=4)
    with pytest.raises(UserError, match=rf"object 0 of image 3 \(3.png\) {message}"):
        check_masks(dicts, "bitmask")
    check_masks(with_mask(mask, iscrowd=1), "bitmask")


def test_why_there_is_no_object():
    assert why_no_object([{"annotations": []}]) == "no image has an annotation"
    assert why_no_object([{"annotations": [{"iscrowd": 1}]}]).startswith(
        "all 1 annotations are crowds"
    )
    assert not why_no_object([{"annotations": [{"iscrowd": 1}, {}]}])


BOX = {"bbox": [2, 2, 5, 5], "bbox_mode": BoxMode.XYWH_ABS}


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"iscrowd": 1}, "all 2 annotations are crowds"),
        ({"bbox": [2, 2, 0, 5]}, "all 2 annotations have a box without width or height"),
        ({"bbox": [30, 2, 5, 5]}, "all 2 annotations have a box outside their image"),
        (
            {"bbox": [2, 2, 2, 9], "bbox_mode": BoxMode.XYXY_ABS},
            "all 2 annotations have a box without width or height",
        ),
    ],
)
def test_a_set_whose_every_annotation_would_be_left_out_has_no_object(change, reason):
    entry = {"width": 20, "height": 20, "annotations": [BOX | change, BOX | change]}
    assert why_no_object([entry]).startswith(reason)
    entry["annotations"].append(BOX)
    assert why_no_object([entry]) == ""


def test_several_reasons_are_counted():
    annotations = [BOX | {"iscrowd": 1}, *[BOX | {"bbox": [2, 2, 0, 0]}] * 2]
    assert why_no_object([{"annotations": annotations}]).startswith(
        "none of the 3 annotations can be trained on: 2 annotations have a box without"
    )


def test_boxes_of_which_most_are_smaller_than_a_pixel_are_refused():
    def shrink(annotation):
        annotation["bbox"][2:] = [0.4, 0.3]

    with pytest.raises(UserError, match="40 of 40 boxes are less than a pixel wide or high"):
        check_objects(spoilt(each(shrink)), "coco", "small.json")


def test_a_few_boxes_smaller_than_a_pixel_are_counted(caplog):
    check_objects(spoilt(first(bbox=[5, 5, 0.5, 9])), "coco", "some_small.json")
    assert "1 of 40 boxes are less than a pixel wide or high" in caplog.text


EMPTY = {"size": [4, 4], "counts": [16]}


@pytest.mark.parametrize("compressed", [False, True])
def test_run_lengths_that_are_all_empty_are_refused_and_some_are_counted(compressed, caplog):
    empty = mask_tools.frPyObjects(EMPTY, 4, 4) if compressed else EMPTY
    dicts = with_mask(empty)
    dicts[0].update(height=4, width=4)
    with pytest.raises(UserError, match="all 1 run-length masks are empty, the first of object 0"):
        check_masks(dicts, "bitmask")
    full = with_mask({"size": [4, 4], "counts": [0, 16]})
    full[0].update(height=4, width=4)
    check_masks(dicts + full, "bitmask")
    assert "1 of 2 run-length masks are empty" in caplog.text


def test_annotations_that_repeat_others_are_refused_if_many_and_counted_if_few(caplog):
    def repeat_first(content):
        content["annotations"].append({**content["annotations"][0], "id": 9999})

    check_objects(spoilt(repeat_first), "coco", "one_twice.json")
    assert "1 of 41 annotations repeat another one" in caplog.text
    assert "annotation 9999 (image 1)" in caplog.text

    def repeat_all(content):
        content["annotations"] += [{**a, "id": a["id"] + 1000} for a in content["annotations"]]

    with pytest.raises(UserError, match="40 of 80 annotations repeat another one"):
        check_objects(spoilt(repeat_all), "coco", "all_twice.json")


def test_objects_of_other_classes_may_have_the_same_box(caplog):
    def other_class(content):
        first = content["annotations"][0]
        content["annotations"].append({**first, "id": 9999, "category_id": 2})

    check_objects(spoilt(other_class), "coco", "two_classes.json")
    assert "repeat" not in caplog.text


def test_an_image_of_unknown_size_is_not_given_one_in_the_message():
    of_unknown_size = [
        {key: value for key, value in entry.items() if key not in ("height", "width")}
        for entry in dicts(BoxMode.XYXY_ABS, (0.1, 0.1, 0.5, 0.5))
    ]
    with pytest.raises(UserError, match=r"has \[0\.1, .*\]; expected") as caught:
        check_dicts(of_unknown_size, "data set mine")
    assert "nan" not in str(caught.value)
