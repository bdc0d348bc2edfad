"""The C4 head with one more norm."""

import logging
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

import virtex_det.modeling  # noqa: F401  (registers the head)
from virtex_det.config import get_cfg
from virtex_det.errors import UserError


@pytest.fixture
def cfg() -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_caption_resnet_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    (
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS,
        cfg.MODEL.RESNETS.WIDTH_PER_GROUP,
        cfg.MODEL.RESNETS.NORM,
    ) = 16, 4, "BN"
    cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_HEADS.NUM_CLASSES = "Res5ROIHeadsExtraNorm", 20
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 8
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 20
    return cfg


def test_adds_the_norm_under_its_name_and_nothing_else(cfg: CfgNode) -> None:
    extra = {name: tensor.shape for name, tensor in build_model(cfg).state_dict().items()}
    cfg.MODEL.ROI_HEADS.NAME = "Res5ROIHeads"  # Detectron2's own
    plain = {name: tensor.shape for name, tensor in build_model(cfg).state_dict().items()}
    added = {name for name in extra if name not in plain}
    assert added == {
        f"roi_heads.res5.norm.{part}"
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert {name: shape for name, shape in extra.items() if name not in added} == plain
    assert extra["roi_heads.res5.norm.weight"] == (128,)
    assert "roi_heads.res5.0.conv1.weight" in extra


def test_the_norm_is_of_the_backbones_type_and_acts_on_the_last_block(cfg: CfgNode) -> None:
    cfg.MODEL.RESNETS.NORM = "SyncBN"
    res5 = build_model(cfg).roi_heads.res5.eval()
    assert isinstance(res5.norm, nn.SyncBatchNorm)
    nn.init.constant_(res5.norm.weight, 3.0)
    nn.init.constant_(res5.norm.bias, -1.0)
    regions = torch.randn(2, 64, 14, 14)
    blocks = res5[2](res5[1](res5[0](regions)))
    torch.testing.assert_close(res5(regions), 3.0 * blocks / (1 + res5.norm.eps) ** 0.5 - 1.0)


@pytest.mark.parametrize(
    "variety",
    [
        {},
        {"STEM": "clip", "DOWNSAMPLE": "clip", "BLOCKS": (4, 6, 10, 6)},
        {"STEM": "deep", "DOWNSAMPLE": "avg_shortcut"},
    ],
    ids=["plain", "CLIP RN50x4", "ResNet-50-D"],
)
def test_trains_and_detects(
    cfg: CfgNode, variety: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    cfg.MODEL.CAPTION_RESNET.update(variety)
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    with caplog.at_level(logging.WARNING):
        model = build_model(cfg)
    assert "private" not in caplog.text
    targets = Instances(
        (64, 64), gt_boxes=Boxes(torch.tensor([[4.0, 4, 40, 40]])), gt_classes=torch.tensor([3])
    )
    with EventStorage():
        losses = model(
            [{"image": torch.randint(256, (3, 64, 64), dtype=torch.uint8), "instances": targets}]
        )
    sum(losses.values()).backward()
    assert model.roi_heads.res5.norm.weight.grad.abs().sum() > 0
    model.eval()
    with torch.no_grad():
        (output,) = model([{"image": torch.randint(256, (3, 64, 64), dtype=torch.uint8)}])
    assert output["instances"].has("pred_boxes")


def test_no_norm_at_all_is_an_error(cfg: CfgNode) -> None:
    cfg.MODEL.RESNETS.NORM = ""
    with pytest.raises(UserError, match="Res5ROIHeadsExtraNorm"):
        build_model(cfg)
