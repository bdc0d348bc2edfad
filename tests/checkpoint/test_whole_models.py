"""An evaluated model is the whole network of the file: extra layers in either one are an error."""

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from tests.checkpoint.conftest import Tensors, random_tensors
from virtex_det.checkpoint.loading import load_weights
from virtex_det.errors import UserError

BOX_HEAD = "roi_heads.box_head.fc2.weight"


@pytest.fixture(scope="module")
def detector(cfg: CfgNode) -> nn.Module:
    return build_model(cfg)


@pytest.fixture(scope="module")
def trained(detector: nn.Module) -> Tensors:
    return random_tensors(detector.state_dict())


def refusal(model: nn.Module, path: str) -> str:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_weights(model, path, require="model")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        BOX_HEAD,
        "roi_heads.box_head.conv1.norm.weight",
        "roi_heads.mask_head.mask_fcn1.weight",
        "roi_heads.box_predictor.2.cls_score.weight",
        "backbone.top_block.p6.weight",
        "backbone.fpn_lateral2.norm.running_mean",
        "proposal_generator.rpn_head.conv.conv1.weight",
    ],
)
def test_an_extra_layer_in_a_part_that_the_model_has_is_an_error(detector, trained, save, name):
    message = refusal(detector, save({"model": trained | {name: torch.ones(2)}}))
    assert (
        f"{name} of the file is not in the model" in message
        and "trained with this config" in message
    )
    assert "same architecture" not in message


def test_the_norm_after_res5_is_not_left_out_of_an_evaluation(c4, save):
    saved = random_tensors(c4(extra_norm=True).state_dict())
    assert "roi_heads.res5.norm.weight of the file is not in the model" in refusal(
        c4(), save({"model": saved})
    )


@pytest.mark.parametrize(
    "name",
    [
        "roi_heads.keypoint_head.score_lowres.weight",
        "sem_seg_head.predictor.weight",
        "pixel_mean",
        "proposal_generator.anchor_generator.cell_anchors.0",
        "backbone.fpn_lateral2.norm.num_batches_tracked",
    ],
)
def test_whole_heads_and_buffers_of_older_versions_may_be_left_out(detector, trained, save, name):
    assert load_weights(
        detector, save({"model": trained | {name: torch.ones(2)}}), require="model"
    ).unused == (name,)


def test_a_detector_with_masks_is_evaluated_without_them(cfg, trained, save):
    without = cfg.clone()
    without.MODEL.MASK_ON = False
    report = load_weights(build_model(without), save({"model": trained}), require="model")
    assert all(name.startswith("roi_heads.mask_head.") for name in report.unused)


def test_an_extra_layer_in_the_heads_does_not_matter_for_the_backbone(detector, trained, save):
    assert load_weights(detector, save({"model": trained | {BOX_HEAD: torch.ones(2)}})).unused == (
        BOX_HEAD,
    )
