import json
import random

import pytest
from PIL import Image

from tests.data.datasets.conftest import coco_content, voc_xml
from virtex_det.errors import UserError
from virtex_det.own_data.look import divide, look_at
from virtex_det.own_data.words import in_words


@pytest.fixture
def write_coco(tmp_path, catalog):
    """Writes a COCO file and its images, each with noise of its own, below a folder."""

    def write(folder, content, seed):
        for number, image in enumerate(content["images"]):
            path = tmp_path / folder / image["file_name"]
            path.parent.mkdir(exist_ok=True)
            pixels = random.Random(f"{seed} {number}").randbytes(60 * 40 * 3)
            Image.frombytes("RGB", (60, 40), pixels).save(path)
        (tmp_path / f"{folder}.json").write_text(json.dumps(content))
        return f"coco:{tmp_path}/{folder}.json:{tmp_path}/{folder}"

    return write


@pytest.fixture
def parts(write_coco):
    return [write_coco("train", coco_content(), 0), write_coco("val", coco_content(), 1)]


def test_good_data_have_no_problem(parts):
    look = look_at(*divide(parts))
    assert [each.name for each in look.train] == parts[:1]
    assert [each.name for each in look.val] == parts[1:]
    assert not look.problems and not look.shared
    text = in_words(look)
    assert "The checks before a training pass." in text and "would not begin" not in text
    assert ["bolt", "2", "2"] in [line.split() for line in text.splitlines()]


def test_other_classes_are_named_and_a_missing_area_is_noted(parts, tmp_path):
    content = coco_content(categories=[{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}])
    del content["annotations"][2]["area"]
    (tmp_path / "val.json").write_text(json.dumps(content))
    look = look_at(*divide(parts))
    assert len(look.problems) == 1
    assert "different classes" in look.problems[0]
    assert "a training would not begin" in in_words(look)
    assert "1 annotations have no valid area" in in_words(look)


def test_an_image_without_a_file_ends_an_evaluation_and_is_left_out_of_a_training(parts, tmp_path):
    (tmp_path / "val" / "a.jpg").unlink()
    look = look_at(*divide(parts))
    assert len(look.problems) == 1 and "a.jpg" in look.problems[0]
    assert look.val[0].missing == 1


@pytest.mark.parametrize("broken", ["train", "val"])
def test_a_file_that_cannot_be_read_does_not_hide_the_other(broken, parts, tmp_path):
    (tmp_path / f"{broken}.json").write_text("{")
    look = look_at(*divide(parts))
    [other] = [*look.train, *look.val]
    assert other.name != parts[broken == "val"] and other.counts == {"nut": 1, "bolt": 2}
    assert len(look.problems) == 1 and f"{broken}.json" in look.problems[0]
    assert f"{broken}.json" in in_words(look)


def test_where_nothing_can_be_read_the_reason_is_the_error(parts, tmp_path):
    for name in ("train", "val"):
        (tmp_path / f"{name}.json").write_text("{")
    with pytest.raises(UserError, match=r"train\.json"):
        look_at(*divide(parts))


def test_masks_of_a_part_of_the_objects_are_said_to_be_of_no_use(parts, tmp_path):
    content = coco_content()
    del content["annotations"][1]["segmentation"]
    (tmp_path / "train.json").write_text(json.dumps(content))
    assert "all masks, as 1 of 3 objects have none" in in_words(look_at(parts[:1], parts[1:]))


def test_one_set_may_be_trained_and_evaluated_on(parts):
    look = look_at(parts[:1], parts[:1])
    assert look.train == look.val and not look.shared
    assert ["bolt", "2", "2"] in [line.split() for line in in_words(look).splitlines()]


def test_an_image_in_both_is_found_under_another_name(parts, tmp_path):
    (tmp_path / "val" / "b.jpg").write_bytes((tmp_path / "train" / "a.jpg").read_bytes())
    look = look_at(*divide(parts))
    assert [each.names for each in look.shared] == [tuple(parts)]
    assert look.shared[0].files == {f"{tmp_path}/val/b.jpg": f"{tmp_path}/train/a.jpg"}
    assert f"1 of 2 images of {parts[1]} are in {parts[0]}" in in_words(look)


def test_images_without_labels_are_a_problem(write_image, tmp_path, catalog):
    write_image(tmp_path / "a.jpg")
    look = look_at([f"folder:{tmp_path}"], [])
    assert len(look.problems) == 1 and "without labels" in look.problems[0]
    assert "without labels" in in_words(look)


def test_sets_called_val_are_not_trained_on_unless_val_is_given(voc, yolo, scenes):
    name = voc({"a": voc_xml([("cat", (1, 1, 20, 20))])})
    other = yolo({"a.jpg": "0 0.5 0.5 0.2 0.2"})
    test = other.replace(":train", ":val")
    assert divide([name, test, other]) == ([name, other], [test])
    assert divide([test, test]) == ([test], [])  # there is nothing else
    assert divide([name, test], [other]) == ([name, test], [other])
    assert divide(["scenes_train", "scenes_val"]) == (["scenes_train"], ["scenes_val"])
