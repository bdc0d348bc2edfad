import base64
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.benchmark.example_comparison import rle, square, write_images
from virtex_det.benchmark.evaluated_run import EvaluatedRun
from virtex_det.benchmark.matching import Verdict, judge
from virtex_det.benchmark.pictures import (
    SIDE,
    draw_detections,
    draw_strips,
    draw_truth,
)

GREY = np.full((32, 32, 3), 200, np.uint8)
NAMES = {1: "square", 2: "ring"}


def decoded(data_uri: str) -> np.ndarray:
    content = base64.b64decode(data_uri.removeprefix("data:image/jpeg;base64,"))
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def drawn_on(picture: np.ndarray) -> bool:
    return (np.abs(picture.astype(int) - 200) > 20).any()


@pytest.fixture
def run(tmp_path, make_record):
    """A run with one detection, of image 1."""
    record = make_record()
    path = tmp_path / "inference" / record.dataset / "coco_instances_results.json"
    path.parent.mkdir(parents=True)

    def make(*detections: dict) -> EvaluatedRun:
        path.write_text(json.dumps(detections))
        return EvaluatedRun(tmp_path, record)

    return make


def test_an_object_is_outlined_and_its_inside_keeps_its_colour():
    picture = decoded(draw_truth(GREY, [square()], NAMES).source)
    scale = len(picture) // 32
    assert picture.shape == (SIDE // 32 * 32, SIDE // 32 * 32, 3)
    assert drawn_on(picture[15 * scale : 17 * scale, 7 * scale : 9 * scale])
    assert not drawn_on(picture[12 * scale : 20 * scale, 12 * scale : 20 * scale])
    assert not drawn_on(picture[27 * scale :])


def test_the_three_forms_of_a_mask_are_drawn_alike():
    full = np.zeros((32, 32), np.uint8)
    full[8:24, 8:24] = 1
    uncompressed = [8 * 32 + 8, *[16, 16] * 15, 16, 8 + 8 * 32]
    polygon = [[8, 8, 24, 8, 24, 24, 8, 24]]
    assert sum(uncompressed) == 32 * 32
    forms = [rle(full), {"size": [32, 32], "counts": uncompressed}, polygon]
    first, *others = [draw_truth(GREY, [square(segmentation=form)], NAMES).source for form in forms]
    assert all(first == other for other in others)


def test_a_detection_without_a_mask_is_drawn_as_its_box():
    detection = square(score=0.9)
    del detection["segmentation"]
    picture = decoded(draw_detections(GREY, [(detection, Verdict.FOUND)], NAMES).source)
    scale = len(picture) // 32
    assert drawn_on(picture[16 * scale - 3 : 16 * scale + 3, 8 * scale - 3 : 8 * scale + 3])
    assert not drawn_on(picture[16 * scale, 12 * scale : 20 * scale])


def test_found_missed_and_false_alarms_look_different_and_are_counted():
    """One square is found, a second is missed, and one detection has the wrong class."""
    left = square(bbox=[2, 8, 8, 8], segmentation=None)
    right = square(bbox=[20, 8, 8, 8], segmentation=None)
    detections = [left | {"score": 0.9}, right | {"score": 0.7, "category_id": 2}]
    drawn = draw_detections(GREY, judge(detections, [left, right], {}, (32, 32)), NAMES)
    assert drawn.summary == "1 found, 1 missed, 1 false alarm"
    alone = {
        verdict: decoded(draw_detections(GREY, [(left | {"score": 0.9}, verdict)], NAMES).source)
        for verdict in (Verdict.FOUND, Verdict.FALSE_ALARM, Verdict.MISSED)
    }
    scale = len(alone[Verdict.FOUND]) // 32
    edge = {
        verdict: picture[9 * scale : 15 * scale, 2 * scale] for verdict, picture in alone.items()
    }
    found, alarm, missed = (edge[verdict].astype(int) for verdict in alone)
    assert (found[:, 0] > found[:, 2] + 40).all()  # BGR: blue
    assert (alarm[:, 2] > alarm[:, 0] + 40).any() and np.ptp(alarm[:, 2]) > 60  # orange, in dashes
    assert (
        np.ptp(missed[:, 0]) > 100 and np.abs(missed[:, 0] - missed[:, 2]).max() < 40
    )  # white, in dots


def test_where_nothing_is_sure_enough_the_picture_says_so():
    with_text = draw_detections(GREY, judge([], [square()], {}, (32, 32)), NAMES)
    assert with_text.summary == "nothing above 0.5, 1 missed"
    corner = decoded(with_text.source)[-20:, :100]
    assert corner.min() < 60 and corner.max() > 200
    assert draw_detections(GREY, [], NAMES).summary == "nothing above 0.5, 0 missed"


def test_an_image_without_labels_says_so():
    assert draw_truth(GREY, [], NAMES).summary == "nothing is labelled"
    assert draw_truth(GREY, [square(iscrowd=1)], NAMES).summary == "nothing is labelled"


@pytest.mark.parametrize("size", [(1, 9000), (9000, 1)])
def test_a_long_thin_image_is_drawn(size):
    annotation = {**square(), "bbox": [0, 0, *size[::-1]], "segmentation": None}
    assert (
        min(decoded(draw_truth(np.zeros((*size, 3), np.uint8), [annotation], NAMES).source).shape)
        >= 1
    )


def test_large_images_shrink():
    picture = decoded(draw_truth(np.zeros((600, 900, 3), np.uint8), [square()], NAMES).source)
    assert picture.shape == (round(SIDE * 600 / 900), SIDE, 3)


def test_a_strip_shows_truth_and_confident_detections_of_the_same_image(run, tmp_path):
    annotations = write_images(tmp_path)
    runs = {"captions": run(square(1, score=0.9), square(2, score=0.4))}
    first, second = draw_strips(runs, annotations, tmp_path)
    assert first.file_name == "1.png" and [*first.pictures] == ["ground truth", "captions"]
    assert all(drawn_on(decoded(picture.source)) for picture in first.pictures.values())
    assert [picture.summary for picture in first.pictures.values()] == [
        "2 labelled",
        "1 found, 1 missed, 0 false alarms",
    ]
    assert second.pictures["captions"].summary == "nothing above 0.5, 2 missed"


def test_images_are_spaced_evenly(run, tmp_path):
    strips = draw_strips({"captions": run()}, write_images(tmp_path, count=9), tmp_path, number=3)
    assert [strip.file_name for strip in strips] == ["1.png", "4.png", "7.png"]


def test_images_with_several_instances_are_shown_first(run, tmp_path):
    path = write_images(tmp_path)
    content = json.loads(path.read_text())
    content["annotations"] = content["annotations"][1:]  # leaves one in the first image
    path.write_text(json.dumps(content))
    assert [strip.file_name for strip in draw_strips({"captions": run()}, path, tmp_path)] == [
        "2.png"
    ]


def test_an_image_whose_file_is_missing_is_left_out(run, tmp_path):
    annotations = write_images(tmp_path)
    (tmp_path / "1.png").unlink()
    assert [
        strip.file_name for strip in draw_strips({"captions": run()}, annotations, tmp_path)
    ] == ["2.png"]


def test_lvis_names_an_image_by_its_address(run, tmp_path):
    content = json.loads(write_images(tmp_path, count=1).read_text())
    content["images"] = [
        {"id": 1, "coco_url": "http://images.example/train2017/1.png", "height": 32, "width": 32}
    ]
    (tmp_path / "lvis.json").write_text(json.dumps(content))
    (tmp_path / "train2017").mkdir()
    (tmp_path / "1.png").rename(tmp_path / "train2017" / "1.png")
    (strip,) = draw_strips({"captions": run()}, tmp_path / "lvis.json", tmp_path)
    assert strip.file_name == "1.png" and drawn_on(decoded(strip.pictures["ground truth"].source))


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("coco_mini/annotations/instances_val2017.json", "coco_mini/val2017"),
        ("lvis_100/annotations/lvis_val_9_with_images.json", "lvis_100"),
    ],
)
def test_real_annotations_are_drawn(run, samples, annotations, images):
    strips = draw_strips({"captions": run()}, samples / annotations, samples / images, number=2)
    assert len(strips) == 2
    for strip in strips:
        truth, without = (
            decoded(strip.pictures["ground truth"].source),
            decoded(strip.pictures["captions"].source),
        )
        assert max(truth.shape) == SIDE and (np.abs(truth.astype(int) - without) > 50).any()


def test_deep_images_are_read_by_the_white_of_the_run(run, tmp_path):
    annotations = write_images(tmp_path, count=3)
    Image.fromarray(np.full((32, 32), 3212, np.uint16)).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"%!PS")
    runs = {"captions": run(square(1, score=0.9))}
    assert [strip.file_name for strip in draw_strips(runs, annotations, tmp_path)] == ["3.png"]
    (tmp_path / "config.yaml").write_text("INPUT:\n  MAX_VALUE: 4095.0\n")
    first, third = draw_strips(runs, annotations, tmp_path)
    assert (first.file_name, third.file_name) == ("1.png", "3.png")
    assert (
        np.abs(decoded(first.pictures["ground truth"].source)[-1, -1].astype(int) - 200).max() <= 3
    )
