"""The one builder of models."""

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from virtex_det.config import override
from virtex_det.engine import Trainer
from virtex_det.engine.preflight.model import build_shapes
from virtex_det.modeling import GatherROIAlign, build_model


def kinds(model: nn.Module, kind: type) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


def test_training_builds_what_the_builder_builds(detector_cfg):
    cfg = detector_cfg("MODEL.GATHER_ROI_ALIGN", True)
    torch.manual_seed(0)
    ours = build_model(cfg)
    torch.manual_seed(0)
    theirs = Trainer.build_model(cfg)
    assert all(
        torch.equal(a, b)
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    )
    assert kinds(ours, GatherROIAlign) == kinds(theirs, GatherROIAlign) > 0
    weight = ours.backbone.bottom_up.stem.conv1.weight
    assert ours.training and weight.is_contiguous(memory_format=torch.channels_last)


def test_shapes_alone_have_the_names_and_shapes_of_the_model(detector_cfg):
    cfg = override(detector_cfg(), {"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.DTYPE": "bfloat16"})
    shapes, model = build_shapes(cfg).state_dict(), build_model(cfg).state_dict()
    assert {name: value.shape for name, value in shapes.items()} == {
        n: v.shape for n, v in model.items()
    }
    assert all(value.is_meta for name, value in shapes.items() if name.endswith("weight"))


@pytest.mark.parametrize("training", [False, True])
def test_features_are_copied_for_roi_align_once_in_evaluation_and_not_in_training(
    detector_cfg, training
):
    model = build_model(detector_cfg()).train(training)
    pooled: list[list[torch.Tensor]] = []
    for pooler in (model.roi_heads.box_pooler, model.roi_heads.mask_pooler):
        pooler.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    image = {"image": torch.randint(0, 256, (3, 96, 96)), "height": 96, "width": 96}
    instances = Instances((96, 96))
    instances.gt_boxes = Boxes(torch.tensor([[8.0, 8.0, 72.0, 72.0]]))
    instances.gt_classes = torch.tensor([0])
    instances.gt_masks = BitMasks(torch.ones(1, 96, 96, dtype=torch.bool))
    model.roi_heads.box_predictor.test_score_thresh = 0.0
    with torch.no_grad(), EventStorage():
        model([image | {"instances": instances}])
    for_boxes, for_masks = pooled
    assert all(a is b for a, b in zip(for_boxes, for_masks, strict=True))
    assert all(each.is_contiguous() for each in for_boxes) != training
