import json
import logging

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from virtex_det.data.datasets import load_coco_captions, register_coco_captions
from virtex_det.errors import UserError

IMAGES = [{"id": k, "file_name": f"{k}.jpg", "height": 10 * k, "width": 20 * k} for k in (3, 1, 2)]
CAPTIONS = [(3, "a cat"), (1, "a dog"), (3, "two cats")]


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "captions.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def _content(captions=CAPTIONS):
    return {
        "images": IMAGES,
        "annotations": [{"image_id": k, "caption": caption} for k, caption in captions],
    }


def test_captions_are_grouped_by_image_in_the_order_of_ids(write):
    assert load_coco_captions(write(_content()), "images") == [
        {
            "file_name": "images/1.jpg",
            "image_id": 1,
            "height": 10,
            "width": 20,
            "captions": ["a dog"],
        },
        {
            "file_name": "images/3.jpg",
            "image_id": 3,
            "height": 30,
            "width": 60,
            "captions": ["a cat", "two cats"],
        },
    ]


def test_dropped_images_without_captions_are_counted_in_the_log(write, caplog):
    with caplog.at_level(logging.INFO, logger="virtex_det"):
        load_coco_captions(write(_content()), "images")
    assert "2 captioned images" in caplog.text and "dropped 1 without captions" in caplog.text


def test_empty_captions_are_dropped_and_counted_and_images_with_no_other_too(write, caplog):
    with caplog.at_level(logging.INFO, logger="virtex_det"):
        dicts = load_coco_captions(
            write(_content([(3, ""), (1, " \t"), (3, " two cats\n")])), "images"
        )
    assert [(entry["image_id"], entry["captions"]) for entry in dicts] == [(3, ["two cats"])]
    assert "dropped 2 without captions, and 2 empty captions" in caplog.text


def test_height_and_width_may_be_absent(write):
    content = {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "annotations": [{"image_id": 1, "caption": "a dog"}],
    }
    assert load_coco_captions(write(content), "images") == [
        {"file_name": "images/1.jpg", "image_id": 1, "captions": ["a dog"]}
    ]


@pytest.mark.parametrize(
    "content",
    [{"images": IMAGES}, {"images": IMAGES, "annotations": []}, _content([(1, "")])],
    ids=str,
)
def test_a_split_without_captions_is_an_error_that_says_so(content, write):
    with pytest.raises(UserError, match="3 images but no captions.\n.*test2017"):
        load_coco_captions(write(content), "images")


def test_a_registered_file_is_read_only_when_used(write, tmp_path):
    register_coco_captions("test_captions_lazy", tmp_path / "captions.json", tmp_path)
    try:
        metadata = MetadataCatalog.get("test_captions_lazy")
        assert metadata.evaluator_type == "captions" and metadata.image_root == str(tmp_path)
        write(_content())
        assert len(DatasetCatalog.get("test_captions_lazy")) == 2
    finally:
        DatasetCatalog.remove("test_captions_lazy")
        MetadataCatalog.remove("test_captions_lazy")


def test_a_missing_file_says_the_folder_and_the_variable(tmp_path):
    with pytest.raises(UserError, match=f"no captions.json in {tmp_path}\n.*DETECTRON2_DATASETS"):
        load_coco_captions(tmp_path / "captions.json", tmp_path)


@pytest.mark.parametrize("content", ["", "<html>not found</html>", '{"images": [', "\x00\x01"])
def test_a_file_that_is_not_json_is_an_error(content, write):
    with pytest.raises(UserError, match="captions.json is not JSON"):
        load_coco_captions(write(content), "images")


def test_a_file_that_is_not_text_is_an_error(tmp_path):
    (tmp_path / "captions.json").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match="not JSON"):
        load_coco_captions(tmp_path / "captions.json", "images")


@pytest.mark.parametrize(
    "content",
    [
        [],
        "[1, 2]",
        {"annotations": []},
        {"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": "a"}]},
        {"images": IMAGES, "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]},
        {"images": {"1": IMAGES[0]}, "annotations": []},
    ],
    ids=str,
)
def test_json_of_another_form_is_an_error_that_shows_the_right_one(content, write):
    with pytest.raises(
        UserError, match='(?s)not in the format of COCO captions.*"images".*"caption"'
    ):
        load_coco_captions(write(content), "images")


def test_captions_of_an_unlisted_image_are_an_error_that_names_it(write):
    with pytest.raises(UserError, match="1 image ids.*e.g. 99"):
        load_coco_captions(write(_content([*CAPTIONS, (99, "a ghost"), (99, "boo")])), "images")


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        (None, "caption None"),
        (3, "caption 3"),
        (["a"], r"caption \['a'\]"),
        ("a \ud83d dog", "lone surrogate"),
    ],
)
@pytest.mark.parametrize(
    ("number", "named"), [({"id": 77}, r"annotation 1 .*id 77"), ({}, r"annotation 1 ")]
)
def test_a_caption_that_is_no_text_is_named(caption, message, number, named, write):
    annotations = [
        {"image_id": 1, "caption": "a dog"},
        {**number, "image_id": 1, "caption": caption},
    ]
    with pytest.raises(UserError, match=rf"captions\.json: {named}.*{message}"):
        load_coco_captions(write({"images": IMAGES, "annotations": annotations}), "images")


def test_control_characters_are_white_space(write):
    (entry,) = load_coco_captions(write(_content([(1, "\x00a\x1fdog\u0085\x07")])), "images")
    assert entry["captions"] == ["a dog"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [*IMAGES, {"id": 1, "file_name": "other.jpg"}]}, "image id 1 occurs twice"),
        ({"images": [*IMAGES, {"id": "1", "file_name": "other.jpg"}]}, "image id 1 occurs twice"),
        (
            {"images": [*IMAGES, {"id": None, "file_name": "other.jpg"}]},
            "image 3 of the list .* has id None",
        ),
        (
            {"images": [*IMAGES, {"id": 1.0, "file_name": "other.jpg"}]},
            "image 3 of the list .* has id 1.0",
        ),
        (
            {"annotations": [{"id": 5, "image_id": k, "caption": "a"} for k in (1, 2)]},
            "annotation id 5 occurs twice",
        ),
        ({"annotations": [{"image_id": True, "caption": "a"}]}, "image_id True"),
        ({"annotations": [{"image_id": 1.0, "caption": "a"}]}, "image_id 1.0"),
        ({"annotations": [{"image_id": [1], "caption": "a"}]}, r"image_id \[1\]"),
        ({"annotations": [{"image_id": "1", "caption": "a"}]}, "not in its"),
    ],
)
def test_ids_that_repeat_or_are_none_are_refused(content, message, write):
    with pytest.raises(UserError, match=message):
        load_coco_captions(write({**_content(), **content}), "images")


def test_image_ids_may_be_names(write):
    content = {"images": [{"id": "b", "file_name": "b.jpg"}, {"id": 2, "file_name": "2.jpg"}]}
    content["annotations"] = [{"image_id": image_id, "caption": "a dog"} for image_id in ("b", 2)]
    assert [entry["image_id"] for entry in load_coco_captions(write(content), "images")] == [2, "b"]
