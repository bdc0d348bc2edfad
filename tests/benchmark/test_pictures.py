import base64
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.benchmark.example_comparison import rle, square, write_images
from virtex_det.benchmark.pictures import SIDE, Run, draw_instances, draw_strips

GREY = np.full((32, 32, 3), 200, np.uint8)


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

    def make(*detections: dict) -> Run:
        path.write_text(json.dumps(detections))
        return Run(tmp_path, record)

    return make


def test_an_instance_is_drawn_where_its_mask_is():
    picture = draw_instances(GREY, [square()], {1: "square"})
    scale = len(picture) // 32
    assert picture.shape == (SIDE // 32 * 32, SIDE // 32 * 32, 3)
    assert (picture[: 4 * scale, 25 * scale :] == 200).all() and (picture[26 * scale :] == 200).all()
    assert (picture[16 * scale, 16 * scale] != 200).any()


def test_the_three_forms_of_a_mask_are_drawn_alike():
    full = np.zeros((32, 32), np.uint8)
    full[8:24, 8:24] = 1
    uncompressed = [8 * 32 + 8, *[16, 16] * 15, 16, 8 + 8 * 32]
    polygon = [[8, 8, 24, 8, 24, 24, 8, 24]]
    assert sum(uncompressed) == 32 * 32
    forms = [rle(full), {"size": [32, 32], "counts": uncompressed}, polygon]
    first, *others = [draw_instances(GREY, [square(segmentation=form)], {1: "square"}) for form in forms]
    assert all((first == other).all() for other in others)


def test_a_detection_without_a_mask_is_drawn_as_its_box():
    detection = square(score=0.9)
    del detection["segmentation"]
    picture = draw_instances(GREY, [detection], {1: "square"})
    scale = len(picture) // 32
    assert (picture[16 * scale, 8 * scale] != 200).any() and (picture[16 * scale, 16 * scale] == 200).all()


@pytest.mark.parametrize("size", [(1, 9000), (9000, 1)])
def test_a_long_thin_image_is_drawn(size):
    detection = {**square(), "bbox": [0, 0, *size[::-1]], "segmentation": None}
    assert min(draw_instances(np.zeros((*size, 3), np.uint8), [detection], {1: "line"}).shape) >= 1


def test_large_images_shrink():
    assert draw_instances(np.zeros((600, 900, 3), np.uint8), [], {}).shape == (round(SIDE * 600 / 900), SIDE, 3)


def test_a_strip_shows_truth_and_confident_detections_of_the_same_image(run, tmp_path):
    annotations = write_images(tmp_path)
    runs = {"captions": run(square(1, score=0.9), square(2, score=0.4))}
    first, second = draw_strips(runs, annotations, tmp_path)
    assert first.file_name == "1.png" and [*first.pictures] == ["ground truth", "captions"]
    assert all(drawn_on(decoded(picture)) for picture in first.pictures.values())
    assert drawn_on(decoded(second.pictures["ground truth"])) and not drawn_on(decoded(second.pictures["captions"]))


def test_images_are_spaced_evenly(run, tmp_path):
    strips = draw_strips({"captions": run()}, write_images(tmp_path, count=9), tmp_path, count=3)
    assert [strip.file_name for strip in strips] == ["1.png", "4.png", "7.png"]


def test_images_with_several_instances_are_shown_first(run, tmp_path):
    path = write_images(tmp_path)
    content = json.loads(path.read_text())
    content["annotations"] = content["annotations"][1:]  # leaves one in the first image
    path.write_text(json.dumps(content))
    assert [strip.file_name for strip in draw_strips({"captions": run()}, path, tmp_path)] == ["2.png"]


def test_an_image_whose_file_is_missing_is_left_out(run, tmp_path):
    annotations = write_images(tmp_path)
    (tmp_path / "1.png").unlink()
    assert [strip.file_name for strip in draw_strips({"captions": run()}, annotations, tmp_path)] == ["2.png"]


def test_lvis_names_an_image_by_its_address(run, tmp_path):
    content = json.loads(write_images(tmp_path, count=1).read_text())
    content["images"] = [{"id": 1, "coco_url": "http://images.example/train2017/1.png", "height": 32, "width": 32}]
    (tmp_path / "lvis.json").write_text(json.dumps(content))
    (tmp_path / "train2017").mkdir()
    (tmp_path / "1.png").rename(tmp_path / "train2017" / "1.png")
    (strip,) = draw_strips({"captions": run()}, tmp_path / "lvis.json", tmp_path)
    assert strip.file_name == "1.png" and drawn_on(decoded(strip.pictures["ground truth"]))


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("coco_mini/annotations/instances_val2017.json", "coco_mini/val2017"),
        ("lvis_100/annotations/lvis_val_9_with_images.json", "lvis_100"),
    ],
)
def test_real_annotations_are_drawn(run, samples, annotations, images):
    strips = draw_strips({"captions": run()}, samples / annotations, samples / images, count=2)
    assert len(strips) == 2
    for strip in strips:
        truth, without = decoded(strip.pictures["ground truth"]), decoded(strip.pictures["captions"])
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
    assert np.abs(decoded(first.pictures["ground truth"])[-1, -1].astype(int) - 200).max() <= 3
