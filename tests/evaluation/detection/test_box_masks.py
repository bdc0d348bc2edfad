import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import paste_masks_in_image
from detectron2.modeling import GeneralizedRCNN, detector_postprocess
from detectron2.structures import Boxes, Instances, ROIMasks
from pycocotools import mask as mask_tools
from torch import nn

from virtex_det.engine import Trainer
from virtex_det.evaluation.detection.box_masks import (
    UNPASTED,
    UnpastedMasks,
    encode_box_masks,
    encode_masks,
    scale,
)


def pasted(probabilities: torch.Tensor, boxes: torch.Tensor, height: int, width: int) -> list[dict]:
    """What Detectron2 makes of a mask head's maps, and pycocotools of that."""
    return encoded(paste_masks_in_image(probabilities, boxes, (height, width)))


def encoded(masks: torch.Tensor) -> list[dict]:
    rles = [mask_tools.encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in masks]
    return [{"size": rle["size"], "counts": rle["counts"].decode()} for rle in rles]


def maps_and_boxes(
    number: int, size: tuple[float, float], image: tuple[int, int], seed: int, map_size: int = 28
):
    """Blobs with ragged borders and holes, some of them beyond the image's border."""
    generator = torch.Generator().manual_seed(seed)
    height, width = image
    sides = torch.rand(number, 2, generator=generator) * (size[1] - size[0]) + size[0]
    centres = torch.rand(number, 2, generator=generator) * torch.tensor([width, height])
    boxes = torch.cat([centres - sides / 2, centres + sides / 2], dim=1)
    noise = torch.rand(number, 1, 7, 7, generator=generator) * 2 - 0.6
    noise = F.interpolate(noise, size=(map_size, map_size), mode="bilinear")[:, 0]
    line = torch.linspace(-1, 1, map_size)
    blob = 4 * (0.8 - line[:, None] ** 2 - line**2)
    return torch.sigmoid(3 * (blob + 2 * noise - 1)), boxes


CASES = {
    "small objects": ((2.0, 30.0), (120, 160)),
    "objects under a pixel": ((0.1, 2.0), (60, 80)),
    "common objects": ((5.0, 200.0), (480, 640)),
    "objects larger than the image": ((100.0, 400.0), (90, 130)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("map_size", [14, 28])
def test_run_lengths_are_those_of_pasted_masks(case, map_size):
    size, (height, width) = CASES[case]
    maps, boxes = maps_and_boxes(100, size, (height, width), seed=0, map_size=map_size)
    assert encode_box_masks(maps, boxes, height, width) == pasted(maps, boxes, height, width)


def test_of_very_large_objects_one_pixel_in_a_million_may_round_otherwise():
    maps, boxes = maps_and_boxes(60, (300.0, 900.0), (800, 1200), seed=1)
    ours, theirs = encode_box_masks(maps, boxes, 800, 1200), pasted(maps, boxes, 800, 1200)
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    assert same >= 58
    differing = [
        np.count_nonzero(mask_tools.decode(a) != mask_tools.decode(b))
        for a, b in zip(ours, theirs, strict=True)
    ]
    assert max(differing) <= 1


def test_random_maps_that_change_at_every_cell():
    generator = torch.Generator().manual_seed(2)
    maps = torch.rand(50, 28, 28, generator=generator)
    _, boxes = maps_and_boxes(50, (3.0, 90.0), (70, 100), seed=3)
    assert encode_box_masks(maps, boxes, 70, 100) == pasted(maps, boxes, 70, 100)


@pytest.mark.parametrize(
    "box", [(0, 0, 20, 10), (-5, -5, 25, 15), (2.5, 1.5, 9.5, 6.5), (19, 9, 20, 10), (3, 4, 4, 9)]
)
def test_a_map_of_ones_fills_its_box_up_to_its_last_pixel(box):
    maps, boxes = torch.ones(1, 28, 28), torch.tensor([box], dtype=torch.float32)
    assert encode_box_masks(maps, boxes, 10, 20) == pasted(maps, boxes, 10, 20)


@pytest.mark.parametrize("map_size", [14, 28])
def test_borders_at_the_very_centres_of_pixels_round_as_in_detectron2(map_size):
    generator = torch.Generator().manual_seed(7)
    corners = torch.randint(0, 300, (200, 2), generator=generator) + 0.5
    boxes = torch.cat(
        [corners, corners + torch.randint(1, 200, (200, 2), generator=generator)], dim=1
    )
    maps = torch.ones(200, map_size, map_size)
    assert encode_box_masks(maps, boxes, 400, 400) == pasted(maps, boxes, 400, 400)


def test_the_threshold_itself_belongs_to_the_mask():
    maps = torch.full((1, 4, 4), 0.5)
    boxes = torch.tensor([[2.0, 2.0, 10.0, 10.0]])
    found = encode_box_masks(maps, boxes, 12, 12)
    assert found == pasted(maps, boxes, 12, 12)
    assert mask_tools.area(found[0]) > 0


@pytest.mark.parametrize(
    "box",
    [(5, 5, 5, 9), (5, 5, 3, 9), (40, 40, 50, 50), (float("nan"), 0, 5, 5), (-np.inf, 0, 5, 5)],
)
def test_a_box_without_area_or_outside_has_an_empty_mask(box):
    boxes = torch.tensor([box, (2, 2, 8, 8)], dtype=torch.float32)
    empty, whole = encode_box_masks(torch.ones(2, 28, 28), boxes, 20, 30)
    assert empty == encoded(torch.zeros(1, 20, 30))[0]
    assert mask_tools.area(whole) == 36


def test_what_is_not_finite_counts_as_outside():
    maps, boxes = maps_and_boxes(1, (40, 50), (60, 80), seed=4)
    broken = maps.clone()
    broken[0, 10:14, 10:14] = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0])
    maps[0, 10:14, 10:14] = 0
    assert encode_box_masks(broken, boxes, 60, 80) == encode_box_masks(maps, boxes, 60, 80)


def test_no_masks_are_no_run_lengths():
    assert encode_box_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), 10, 20) == []
    assert encode_masks(torch.zeros(0, 10, 20, dtype=torch.bool)) == []


def test_maps_in_half_precision_are_encoded():
    maps, boxes = maps_and_boxes(5, (40, 50), (60, 80), seed=5)
    maps = maps.bfloat16()
    assert encode_box_masks(maps, boxes, 60, 80) == pasted(maps.float(), boxes, 60, 80)


@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 1.0])
def test_drawn_masks_are_encoded_as_pycocotools_does(density):
    masks = torch.rand(7, 23, 31, generator=torch.Generator().manual_seed(6)) < density
    assert encode_masks(masks) == encoded(masks)


EXAMPLE = {"height": 50, "width": 80}


def instances(masks: bool = True) -> Instances:
    found = Instances((100, 120))
    found.pred_boxes = Boxes(
        torch.tensor([[10.0, 20, 60, 90], [0, 0, 120, 100], [30, 30, 30, 40], [-5, -9, 20, 20]])
    )
    found.scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    if masks:
        found.pred_masks = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return found


def test_boxes_are_those_of_detectron2s_last_step_and_what_it_drops_is_dropped():
    scaled, wanted = scale(instances(), EXAMPLE), detector_postprocess(instances(), 50, 80)
    assert torch.equal(scaled.pred_boxes.tensor, wanted.pred_boxes.tensor)
    assert torch.equal(scaled.scores, wanted.scores) and len(scaled) == 3
    assert torch.equal(scaled.box_masks, instances().pred_masks[[0, 1, 3], 0])
    assert scaled.image_size == (50, 80)


def test_what_is_scaled_stays_as_it_was():
    found = instances()
    scale(found, EXAMPLE)
    assert torch.equal(found.pred_boxes.tensor, instances().pred_boxes.tensor) and found.has(
        "pred_masks"
    )


def test_masks_may_come_as_roi_masks_or_not_at_all():
    found = instances()
    found.pred_masks = ROIMasks(found.pred_masks[:, 0])
    assert torch.equal(scale(found, EXAMPLE).box_masks, scale(instances(), EXAMPLE).box_masks)
    assert not scale(instances(masks=False), EXAMPLE).has("box_masks")


def test_an_image_whose_dict_has_no_size_keeps_the_networks():
    assert scale(instances(), {}).image_size == (100, 120)


@pytest.fixture
def model(detector_cfg) -> GeneralizedRCNN:
    torch.manual_seed(0)
    return Trainer.build_model(detector_cfg("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)).eval()


def test_an_rcnn_finds_the_same_as_before_the_last_step(model):
    image = {
        "image": torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8),
        "height": 32,
        "width": 48,
    }
    with torch.no_grad():
        [wanted], [output] = model([image]), UnpastedMasks.of(model).eval()([image])
    found = scale(output[UNPASTED], image)
    assert len(found) > 0 and torch.equal(
        found.pred_boxes.tensor, wanted["instances"].pred_boxes.tensor
    )
    assert found.box_masks.shape == (len(found), 28, 28)


def test_in_bf16_it_runs_as_the_model_does(detector_cfg):
    bf16 = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bfloat16")
    cfg = detector_cfg(*bf16, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    model = Trainer.build_model(cfg).eval()
    image = {
        "image": torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8),
        "height": 64,
        "width": 64,
    }
    with torch.no_grad():
        [wanted], [output] = model([image]), UnpastedMasks.of(model, bf16=True)([image])
    assert torch.equal(output[UNPASTED].scores, wanted["instances"].scores)


class AnotherRCNN(GeneralizedRCNN):
    def inference(self, batched_inputs, detected_instances=None, do_postprocess=True):
        return []


def test_models_with_a_last_step_of_their_own_stay_as_they_are():
    plain, other = nn.Linear(1, 1), AnotherRCNN.__new__(AnotherRCNN)
    assert UnpastedMasks.of(plain) is plain and UnpastedMasks.of(other) is other


@pytest.mark.parametrize("training", [True, False])
def test_it_is_in_training_mode_where_its_model_is(model, training):
    assert UnpastedMasks.of(model.train(training)).training == training
