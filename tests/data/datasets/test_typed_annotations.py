import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from virtex_det.data.datasets import annotation_content, load_dataset
from virtex_det.data.datasets.typed_annotations import TypedContent, decode_annotations
from virtex_det.errors import UserError

NAME = "typed_annotations_test"


def _content() -> dict[str, Any]:
    polygon = [1, 1, 9.5, 1, 9.5, 9]
    boxes = [[1, 1, 8.5, 8], [0.5, 2, 3, 4], [2, 2, 5, 5]]
    masks: list[Any] = [[polygon], [polygon, polygon], {"size": [20, 30], "counts": [10, 5, 585]}]
    annotations = [
        {
            "id": 7 - number,
            "image_id": 1 + number % 2,
            "category_id": 3,
            "bbox": box,
            "segmentation": mask,
        }
        | {"area": 12, "iscrowd": int(number == 2), "note": "a"}
        for number, (box, mask) in enumerate(zip(boxes, masks, strict=True))
    ]
    return {
        "info": {"year": 2026, "by": {"name": "us"}},
        "images": [
            {"id": number, "file_name": f"{number}.png", "height": 20, "width": 30}
            for number in (1, 2)
        ],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "nut", "keypoints": ["a", "b"]}],
    }


def _encode(change: Callable[[dict[str, Any]], object] = lambda content: None) -> bytes:
    content = _content()
    change(content)
    return json.dumps(content).encode()


def _first(**entries: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["annotations"][0].update(entries)


def _all(**entries: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: [entry.update(entries) for entry in content["annotations"]]


def _without(name: str, place: int = 1) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["annotations"][place].pop(name)


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "change",
    [
        lambda content: None,
        _first(keypoints=[1, 2.5, 2], num_keypoints=1),
        _first(score=0.5, other=None, text='"id": 1'),
        _first(segmentation=None),
        _first(segmentation=[]),
        _without("segmentation"),
        _without("area"),
        lambda content: content.pop("info"),
        lambda content: content["images"][0].update(extra={"a": {"b": [1]}}),
    ],
)
def test_a_file_in_order_gives_what_a_plain_parser_gives(change, indent):
    content = _content()
    change(content)
    encoded = json.dumps(content, indent=indent).encode()
    found = decode_annotations(encoded)
    if found is None:  # a text with the sign that is counted as one of names
        assert b'\\"id\\":' in encoded
        return
    assert found == content and repr(found) == repr(json.loads(encoded))  # 1 is not 1.0
    assert found.columns.image_ids.tolist() == [1, 2, 1]
    assert found.columns.boxes.tolist() == [[1, 1, 8.5, 8], [0.5, 2, 3, 4], [2, 2, 5, 5]]
    assert found.columns.have_masks == all(
        "segmentation" in entry for entry in content["annotations"]
    )


_FAULTS = {
    "no id": _without("id"),
    "no box": _without("bbox", 0),
    "repeated id": _first(id=6),
    "negative id": _first(id=-1),
    "large id": _first(id=2**53 + 1),
    "very large id": _first(id=10**30),
    "text as id": _first(id="7"),
    "float as id": _first(id=7.0),
    "bool as id": _first(id=True),
    "image id as text": _first(image_id="1"),
    "image id as float": _first(image_id=1.0),
    "no such image": _all(image_id=9),
    "no such category": _first(category_id=4),
    "crowd of another number": _first(iscrowd=2),
    "crowd as text": _first(iscrowd="0"),
    "box of three": _first(bbox=[1, 2, 3]),
    "box as text": _first(bbox="1 2 3 4"),
    "box of text": _first(bbox=["1", 2, 3, 4]),
    "box of bool": _first(bbox=[True, 2, 3, 4]),
    "large box": _first(bbox=[1, 2, 3, 1e300]),
    "box of NaN": _first(bbox=[1, 2, 3, float("nan")]),
    "fractions": lambda content: [
        entry.update(bbox=[0.1, 0.1, 0.5, 0.5]) for entry in content["annotations"]
    ],
    "outside": _all(bbox=[40, 40, 5, 5]),
    "reversed": lambda content: [
        entry.update(bbox=[5, 5, -4, -4]) for entry in content["annotations"]
    ],
    "flat polygon": _first(segmentation=[1, 1, 9, 1, 9, 9]),
    "mask as text": _first(segmentation="x"),
    "runs without size": _first(segmentation={"counts": [1]}),
    "text in a polygon": _first(segmentation=[["1", 1, 9, 1, 9, 9]]),
    "no annotation": lambda content: content["annotations"].clear(),
    "annotation is a list": lambda content: content["annotations"].append([1]),
    "category without name": lambda content: content["categories"][0].pop("name"),
    "category id as text": lambda content: content["categories"][0].update(id="3"),
    "category id as list": lambda content: content["categories"][0].update(id=[3]),
    "image without width": lambda content: content["images"][0].pop("width"),
    "repeated image": lambda content: content["images"][0].update(id=2),
}


@pytest.fixture
def outcome(tmp_path, monkeypatch):
    """Returns what loading a file ends with, typed or entry by entry."""

    def load(encoded: bytes, typed: bool) -> Any:
        path = tmp_path / "a.json"
        path.write_bytes(encoded)
        if not typed:
            monkeypatch.setattr(annotation_content, "decode_annotations", lambda encoded: None)
        register_coco_instances(NAME, {}, str(path), str(tmp_path))
        try:
            return copy.deepcopy(load_dataset(NAME))
        except UserError as error:
            return str(error)
        finally:
            DatasetCatalog.remove(NAME)
            MetadataCatalog.remove(NAME)

    return load


@pytest.mark.parametrize("fault", _FAULTS)
def test_a_fault_has_the_message_of_the_reader_that_looks_at_each_entry(fault, outcome):
    encoded = _encode(_FAULTS[fault])
    assert outcome(encoded, typed=True) == outcome(encoded, typed=False)


def test_a_file_in_order_has_the_dicts_of_that_reader(outcome):
    assert isinstance(decode_annotations(_encode()), TypedContent)
    found = outcome(_encode(), typed=True)
    assert len(found) == 2 and repr(found) == repr(outcome(_encode(), typed=False))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"area": 12', b'"area": 12, "area": 12'),
        (b'"area": 12', b'"area": 12, "area" : 12'),
        (b'"counts": ', b'"size" : [20, 30], "counts": '),
        (b'"year": 2026', b'"year": 2026, "year": 2027'),
        (b'"note": "a"}', b'"note": "a", "other": {"a": 1}}'),
        (b'{"info"', b"\xef\xbb\xbf" + b'{"info"'),
        (b'{"info"', b'{"annotations": [{"id": 1}], "info"'),
        (b'"us"', b'"\xff"'),
    ],
)
def test_names_that_occur_twice_and_other_forms_are_left_to_that_reader(before, after):
    encoded = _encode()
    assert before in encoded
    assert decode_annotations(encoded.replace(before, after, 1)) is None


def test_lvis_needs_masks_and_a_typed_file_without_says_so(tmp_path):
    from virtex_det.data.datasets.objects import check_objects

    content = decode_annotations(_encode(_without("segmentation")))
    with pytest.raises(UserError, match="annotation 6 has no segmentation"):
        check_objects(content, "lvis", "a.json")
