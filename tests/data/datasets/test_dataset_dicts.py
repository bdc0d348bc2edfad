import numpy as np
import pytest

from virtex_det.data.datasets.dataset_dicts import check_dataset_dicts, check_sizes
from virtex_det.errors import UserError

NAMES = {"thing_classes": ["bolt", "nut"]}


def image(**changes):
    return {
        "image_id": 1,
        "file_name": "1.png",
        "height": 4,
        "width": 6,
        "annotations": [thing()],
    } | changes


def thing(**changes):
    return {"category_id": 1, "iscrowd": 0} | changes


@pytest.mark.parametrize(
    "entry",
    [
        image(),
        image(annotations=[]),
        image(annotations=(thing(category_id=np.int64(1), iscrowd=True),)),
        {"image_id": "a", "captions": ["a nut"]},
    ],
    ids=["usual", "no object", "tuple, NumPy's number, True", "captions"],
)
def test_what_detectron2_takes_passes(entry):
    check_dataset_dicts([entry], NAMES)


WRONG = {
    "a generator": ((entry for entry in [image()]), NAMES, "returned a generator; expected a list"),
    "a dict by id": ({1: image()}, NAMES, "returned a dict"),
    "names alone": (["1.png"], NAMES, "entry 0 of the list .* is '1.png'; expected a dict"),
    "an id that is True": ([image(image_id=True)], NAMES, "has image_id True"),
    "no list of objects": ([image(annotations=None)], NAMES, "image 1 has annotations None"),
    "objects without fields": (
        [image(annotations=[[4, 4, 8, 8]])],
        NAMES,
        "image 1 has annotations",
    ),
    "a class by name": (
        [image(annotations=[thing(category_id="nut")])],
        NAMES,
        "object 0 of image 1 .* 'nut'",
    ),
    "a class of 1.5": (
        [image(annotations=[thing(category_id=1.5)])],
        NAMES,
        "category_id 1.5; expected a whole",
    ),
    "no class": ([image(annotations=[{}])], NAMES, "category_id None"),
    "a crowd that is text": (
        [image(annotations=[thing(iscrowd="0")])],
        NAMES,
        "iscrowd '0'; expected 0, or 1",
    ),
    "a crowd of 2": ([image(annotations=[thing(iscrowd=2)])], NAMES, "iscrowd 2"),
    "a height that is text": (
        [image(height="4")],
        NAMES,
        r"image 1 \(1.png\) has height '4'; expected a whole",
    ),
    "a negative width": ([image(width=-6)], NAMES, "has width -6"),
    "a width of 6.5": ([image(width=6.5)], NAMES, "has width 6.5"),
    "a caption that is none": (
        [image(captions=["a nut", None])],
        NAMES,
        r"image 1 \(1.png\) has the caption None",
    ),
    "half a character": ([image(captions=["\ud800"])], NAMES, "lone surrogate"),
    "one text as captions": (
        [image(captions="a nut")],
        NAMES,
        "has captions 'a nut'; expected a list",
    ),
    "no caption": (
        [{"image_id": 1, "captions": []}],
        NAMES,
        "Leave out images without a caption",
    ),
    "names in one text": (
        [image()],
        {"thing_classes": "nut"},
        "thing_classes in its metadata is 'nut'",
    ),
    "names without order": (
        [image()],
        {"thing_classes": {"nut", "bolt"}},
        "expected a list of names",
    ),
    "numbers as names": ([image()], {"thing_classes": [0, 1]}, "expected a list of names"),
}


@pytest.mark.parametrize(("dicts", "metadata", "message"), WRONG.values(), ids=WRONG)
def test_what_would_fail_later_or_count_as_something_else_is_named(dicts, metadata, message):
    with pytest.raises(UserError, match=message):
        check_dataset_dicts(dicts, metadata)


@pytest.mark.parametrize("height", [None, "4", 4.0, 0, True])
def test_ground_truth_is_not_made_of_images_without_a_size(height):
    with pytest.raises(UserError, match="own: image 1 has height"):
        check_sizes([image(height=height)], "own")
