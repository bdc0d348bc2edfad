import json

import numpy as np
import pytest

from tests.evaluation.detection.references import as_detections, encode
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.detections import Detections, concatenate, read_detections


def entry(image_id=1, score=0.5, masks=True):
    mask = np.zeros((6, 9))
    mask[1:3, 2:7] = 1
    box = {"image_id": image_id, "category_id": 3, "bbox": [2.0, 1.0, 5.0, 2.0], "score": score}
    return box | ({"segmentation": encode(mask)} if masks else {})


@pytest.mark.parametrize("masks", [True, False])
def test_entries_that_were_read_are_those_of_the_file(tmp_path, masks):
    entries = [entry(image_id, image_id / 10, masks) for image_id in range(5)]
    (tmp_path / "results.json").write_text(json.dumps(entries))
    read = read_detections(tmp_path / "results.json")
    assert list(read.entries()) == list(as_detections(entries).entries()) == entries
    assert (
        read.image_ids.dtype == read.category_ids.dtype == np.int64
        and read.scores.dtype == np.float64
    )


def test_an_empty_list_is_no_detections(tmp_path):
    (tmp_path / "results.json").write_text("[]")
    assert len(read_detections(tmp_path / "results.json").scores) == 0


def test_entries_without_box_get_that_of_their_mask(tmp_path):
    entries = [
        {name: value for name, value in entry().items() if name != "bbox"},
        entry() | {"bbox": [0, 0, 1, 1]},
    ]
    (tmp_path / "results.json").write_text(json.dumps(entries))
    assert read_detections(tmp_path / "results.json").boxes.tolist() == [[2, 1, 5, 2], [0, 0, 1, 1]]


def test_image_names_become_keys(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps([entry("2007_000027"), entry(4)]))
    assert read_detections(
        tmp_path / "results.json", {"2007_000027": 8, 4: 4}.__getitem__
    ).image_ids.tolist() == [8, 4]


def test_counts_may_be_bytes():
    rle = entry()["segmentation"]
    detections = as_detections(
        [entry() | {"segmentation": rle | {"counts": rle["counts"].encode()}}]
    )
    assert next(detections.entries())["segmentation"] == rle


def test_detections_can_be_taken_by_place_and_by_mask():
    detections = as_detections([entry(image_id) for image_id in range(4)])
    assert detections.take(np.array([2, 0])).image_ids.tolist() == [2, 0]
    taken = detections.take(detections.image_ids > 1)
    assert taken.image_ids.tolist() == [2, 3] and len(taken.rles) == len(taken.boxes) == 2


def test_parts_are_put_together_and_empty_ones_say_nothing_of_masks():
    parts = [
        Detections.empty(),
        as_detections([entry(1)]),
        Detections.empty(masks=True),
        as_detections([entry(2)]),
    ]
    whole = concatenate(parts)
    assert whole.image_ids.tolist() == [1, 2] and len(whole.rles) == 2
    assert concatenate([]).rles is None and concatenate([Detections.empty(masks=True)]).rles == []
    with pytest.raises(UserError, match="Some detections have masks and others do not"):
        concatenate([as_detections([entry()]), as_detections([entry(masks=False)])])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "is not JSON"),
        ('{"bbox": {"AP": 3}}', "is not a list of detections"),
        ("[3]", "is not a list of detections"),
    ],
)
def test_a_file_of_another_kind_is_an_error(tmp_path, text, message):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=f"results.json {message}"):
        read_detections(tmp_path / "results.json")


def test_a_file_that_is_absent_is_an_error(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_detections(tmp_path / "results.json")
