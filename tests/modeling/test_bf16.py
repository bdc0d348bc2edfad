"""bf16: results are nearly equal, and checkpoints stay in float32."""

import copy

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from virtex_det.config import get_cfg
from virtex_det.modeling import use_bf16, use_gather_roi_align


def base_config() -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.update(
        {"DEPTH": 18, "NORM": "BN", "RES2_OUT_CHANNELS": 16, "STEM_OUT_CHANNELS": 16}
    )
    return cfg


def build_detector() -> nn.Module:
    torch.manual_seed(0)
    cfg, stages, levels = base_config(), ["res2", "res3", "res4", "res5"], ["p2", "p3", "p4", "p5"]
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.MASK_ON = "build_caption_resnet_fpn_backbone", True
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = stages
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64]]
    cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = levels
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 50
    cfg.MODEL.ROI_HEADS.update(
        {"NAME": "StandardROIHeads", "NUM_CLASSES": 3, "BATCH_SIZE_PER_IMAGE": 16}
    )
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.ROI_BOX_HEAD.update(
        {"NAME": "FastRCNNConvFCHead", "NUM_FC": 1, "FC_DIM": 32, "POOLER_RESOLUTION": 7}
    )
    cfg.MODEL.ROI_MASK_HEAD.update(
        {"NAME": "MaskRCNNConvUpsampleHead", "NUM_CONV": 1, "CONV_DIM": 16}
    )
    return use_gather_roi_align(build_model(cfg))


def build_captioner() -> nn.Module:
    torch.manual_seed(0)
    cfg = base_config()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME = (
        "BicaptioningModel",
        "build_caption_resnet_backbone",
    )
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    cfg.MODEL.TEXTUAL.update(
        {"VOCAB_SIZE": 40, "HIDDEN_SIZE": 32, "ATTENTION_HEADS": 2, "FEEDFORWARD_SIZE": 64}
    )
    cfg.MODEL.TEXTUAL.DROPOUT = 0.0
    return build_model(cfg)


def inputs() -> list[dict[str, Tensor | Instances]]:
    torch.manual_seed(1)
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 4:40, 4:40] = masks[1, 20:60, 30:60] = True
    boxes = Boxes(torch.tensor([[4.0, 4, 40, 40], [30, 20, 60, 60]]))
    targets = Instances(
        (64, 64), gt_boxes=boxes, gt_classes=torch.tensor([0, 2]), gt_masks=BitMasks(masks)
    )
    image = torch.randint(256, (3, 64, 64), dtype=torch.uint8)
    return [{"image": image, "instances": targets, "caption_tokens": torch.tensor([1, 7, 5, 2])}]


@pytest.mark.parametrize("build", [build_detector, build_captioner])
def test_trains_with_nearly_the_same_losses_and_float32_gradients(build: type[nn.Module]) -> None:
    losses = []
    for model in (build(), use_bf16(build())):
        torch.manual_seed(2)  # the detector samples proposals
        with EventStorage():
            losses.append(model(inputs()))
    sum(losses[1].values()).backward()
    assert all(
        p.grad.dtype == p.dtype == torch.float32 for p in model.parameters() if p.grad is not None
    )
    assert sum(losses[1].values()).item() == pytest.approx(sum(losses[0].values()).item(), rel=0.05)
    assert losses[1] != losses[0]


def test_a_detector_gives_float32_boxes_and_scores_and_boolean_masks() -> None:
    model = use_bf16(build_detector().eval())
    with torch.no_grad():
        found = model(inputs())[0]["instances"]
    assert len(found) and found.pred_boxes.tensor.dtype == found.scores.dtype == torch.float32
    assert found.pred_masks.shape[1:] == (64, 64) and found.pred_masks.numpy().dtype == np.bool_


@pytest.mark.parametrize("build", [build_detector, build_captioner])
def test_a_checkpoint_is_as_without(build: type[nn.Module]) -> None:
    model = build()
    before = copy.deepcopy(model.state_dict())
    after = use_bf16(model).state_dict()
    assert list(after) == list(before)
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype
        for name, tensor in before.items()
    )


def test_convolutions_run_channels_last() -> None:
    model = use_bf16(build_captioner().eval())
    with torch.no_grad():
        grid = model.backbone(torch.randn(2, 3, 64, 64))["res5"]
    assert grid.is_contiguous(memory_format=torch.channels_last)


def test_attention_on_a_cpu_is_the_plain_one_in_the_forward_alone():
    class Model(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            self.fused = torch.backends.cuda.flash_sdp_enabled()
            return super().forward(inputs)

    model = use_bf16(Model(2, 2))
    model(torch.ones(1, 2))
    assert not model.fused and torch.backends.cuda.flash_sdp_enabled()
