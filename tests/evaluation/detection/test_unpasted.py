import pytest
import torch
from detectron2.modeling import GeneralizedRCNN, detector_postprocess
from detectron2.structures import Boxes, Instances, ROIMasks
from torch import nn

from virtex_det.engine import Trainer
from virtex_det.evaluation.detection.unpasted import UNPASTED, UnpastedMasks, scale

EXAMPLE = {"height": 50, "width": 80}


def instances(masks: bool = True) -> Instances:
    found = Instances((100, 120))
    found.pred_boxes = Boxes(torch.tensor([[10.0, 20, 60, 90], [0, 0, 120, 100], [30, 30, 30, 40], [-5, -9, 20, 20]]))
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
    assert torch.equal(found.pred_boxes.tensor, instances().pred_boxes.tensor) and found.has("pred_masks")


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
    image = {"image": torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8), "height": 32, "width": 48}
    with torch.no_grad():
        [wanted], [output] = model([image]), UnpastedMasks.of(model).eval()([image])
    found = scale(output[UNPASTED], image)
    assert len(found) > 0 and torch.equal(found.pred_boxes.tensor, wanted["instances"].pred_boxes.tensor)
    assert found.box_masks.shape == (len(found), 28, 28)


def test_in_bf16_it_runs_as_the_model_does(detector_cfg):
    cfg = detector_cfg("MODEL.BF16", True, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    model = Trainer.build_model(cfg).eval()
    image = {"image": torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8), "height": 64, "width": 64}
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
