import numpy as np
import pytest
import torch
from PIL import Image

from virtex_det import get_cfg
from virtex_det.data import ClassificationMapper
from virtex_det.errors import UserError


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.CLASSIFICATION.CROP_SIZE = 16
    cfg.INPUT.CLASSIFICATION.RESIZE = 20
    return cfg


@pytest.fixture
def labelled(example):
    return {"file_name": example["file_name"], "image_id": 7, "label": 3}


def test_an_example_has_a_square_uint8_image_and_its_label(cfg, labelled):
    mapped = ClassificationMapper(cfg, True)(labelled)
    assert mapped["image"].shape == (3, 16, 16) and mapped["image"].dtype == torch.uint8
    assert mapped["image"].is_contiguous()
    assert (mapped["label"], mapped["image_id"], mapped["height"], mapped["width"]) == (
        3,
        7,
        16,
        16,
    )


def test_an_image_without_a_label_has_none(cfg, example):
    assert "label" not in ClassificationMapper(cfg, False)(example)


def test_evaluation_resizes_the_shortest_side_and_takes_the_centre(cfg, labelled):
    mapped = ClassificationMapper(cfg, False)(labelled)
    # 40 x 60 becomes 20 x 30, of which the middle 16 x 16 stay.
    whole = Image.open(labelled["file_name"]).resize((30, 20), Image.Resampling.BILINEAR)
    expected = np.asarray(whole)[2:18, 7:23].astype(int)
    assert np.abs(mapped["image"].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_training_draws_crops_and_a_torch_seed_fixes_them(cfg, labelled):
    mapper = ClassificationMapper(cfg, True)
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        runs.append([mapper(labelled)["image"] for _ in range(3)])
    assert all(torch.equal(*pair) for pair in zip(*runs, strict=True))
    assert not torch.equal(runs[0][0], runs[0][1])


def test_training_flips_as_often_as_told(cfg, labelled):
    cfg.INPUT.CLASSIFICATION.CROP_SCALE = (1.0, 1.0)
    images = {}
    for probability in (0.0, 1.0):
        cfg.INPUT.CLASSIFICATION.FLIP_PROB = probability
        torch.manual_seed(0)
        images[probability] = ClassificationMapper(cfg, True)(labelled)["image"]
    assert torch.equal(images[1.0], images[0.0].flip(2)) and not torch.equal(
        images[1.0], images[0.0]
    )


def test_bgr_is_the_same_image_with_its_channels_reversed(cfg, labelled):
    rgb = ClassificationMapper(cfg, False)(labelled)["image"]
    cfg.INPUT.FORMAT = "BGR"
    assert torch.equal(ClassificationMapper(cfg, False)(labelled)["image"], rgb.flip(0))


def test_a_format_without_colours_is_an_error(cfg):
    cfg.INPUT.FORMAT = "L"
    with pytest.raises(UserError, match="INPUT.FORMAT is 'L'"):
        ClassificationMapper(cfg, True)
