import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.data.datasets.conftest import coco_content
from virtex_det.config import load_config
from virtex_det.own_data.look import BASE
from virtex_det.own_data.samples import augmented, chosen_images, ground_truth, odd_samples
from virtex_det.own_data.survey import odd_objects, survey

BOXES = {"MODEL.MASK_ON": False, "INPUT.MIN_SIZE_TRAIN": (80,)}
GROUND = (90, 120, 60)  # colour of the test images


def pixels_of(sample):
    content = base64.b64decode(str(sample.picture).partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def drawn_share(sample):
    """Return which part of a picture is not of its plain colour."""
    return (np.abs(pixels_of(sample) - GROUND).max(axis=2) > 40).mean()


def test_ground_truth_is_drawn_polygons_run_lengths_and_crowds(coco):
    content = coco_content()
    content["annotations"][1] |= {
        "iscrowd": 1,
        "segmentation": {"size": [40, 60], "counts": [1230, 8, 1162]},
    }
    found = survey(coco(content))
    first, second = ground_truth(found, [0, 1])
    assert first.file.name == "a.jpg" and first.note == "60 x 40 pixels, 2 objects"
    assert pixels_of(first).shape == (160, 240, 3)  # 4 times as large, and not more
    assert 0.01 < drawn_share(first) < 0.5 and 0.01 < drawn_share(second) < 0.5


def test_samples_are_those_of_the_mapper_in_any_order_of_channels(coco):
    found = survey(coco(coco_content()))
    rgb = load_config(BASE, BOXES)
    bgr = load_config(BASE, BOXES | {"INPUT.FORMAT": "BGR"})
    first, *_ = augmented(rgb, found, [0, 1], seed=0)
    assert first.note == "120 x 80 pixels, 2 objects"
    assert np.array_equal(pixels_of(first), pixels_of(augmented(bgr, found, [0, 1], seed=0)[0]))
    masks = load_config(BASE, {"INPUT.MIN_SIZE_TRAIN": (80,)})
    assert drawn_share(augmented(masks, found, [0], seed=0)[0]) > 0.01


def test_flips_depend_on_the_seed(yolo):
    found = survey(yolo({"a.jpg": "0 0.1 0.5 0.1 0.2"}))
    cfg = load_config(BASE, BOXES)
    pictures = {augmented(cfg, found, [0], seed)[0].picture for seed in range(8)}
    assert len(pictures) == 2


def test_a_broken_image_is_shown_as_one_that_cannot_be_read(coco, tmp_path):
    found = survey(coco(coco_content()))
    (tmp_path / "images" / "a.jpg").write_bytes(b"no image")
    cfg = load_config(BASE, BOXES)
    for sample in (*ground_truth(found, [0]), *augmented(cfg, found, [0], seed=0)):
        assert sample.note == "image cannot be read"


def test_images_with_objects_come_first_and_missing_ones_not_at_all(yolo, tmp_path):
    labels = {f"{number}.jpg": None for number in range(8)}
    name = yolo(labels | {"8.jpg": "0 0.5 0.5 0.2 0.2"})
    found = survey(name)
    assert chosen_images(found, 1, seed=0) == [8]
    (tmp_path / "images" / "train" / "8.jpg").unlink()
    assert 8 not in chosen_images(found, 9, seed=0)


def test_odd_boxes_are_drawn_alone_and_each_image_once(yolo):
    whole = "0 0.5 0.5 1 1\n0 0.5 0.5 1 1\n1 0.5 0.5 0.2 0.2"
    found = survey(yolo({"a.jpg": whole, "b.jpg": whole}))
    odd = {each.what: each for each in odd_objects(found)}
    samples = odd_samples(found, odd["as large as their image"], 5)
    assert [sample.file.name for sample in samples] == ["a.jpg", "b.jpg"]
    assert len(odd_samples(found, odd["as large as their image"], 1)) == 1


def test_images_without_labels_are_shown_as_they_are(write_image, tmp_path, catalog):
    write_image(tmp_path / "a.png")
    [sample] = ground_truth(survey(f"folder:{tmp_path}"), [0])
    assert sample.note == "60 x 40 pixels" and drawn_share(sample) == pytest.approx(0)
