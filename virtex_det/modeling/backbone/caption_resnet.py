"""The one builder of ResNet backbones, for pretraining and transfer alike."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock, DeformBottleneckBlock
from torch import nn

from virtex_det.errors import UserError

BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_BASIC_DEPTHS = (18, 34)  # two 3x3 convolutions per block; deeper networks have bottlenecks


@BACKBONE_REGISTRY.register()
def build_caption_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Build a ResNet from MODEL.RESNETS, with the layers and parameter names of Detectron2's own builder.

    Detectron2's accepts RES2_OUT_CHANNELS of 64 only for ResNet-18 and 34; here any width goes with any depth.

    Args:
        cfg: a config with MODEL.RESNETS, MODEL.CAPTION_RESNET and MODEL.BACKBONE.FREEZE_AT.
        input_shape: its `channels` are those of the image.

    Returns:
        A backbone whose features are MODEL.RESNETS.OUT_FEATURES.

    Raises:
        UserError: no such ResNet exists.
    """
    resnets = cfg.MODEL.RESNETS
    _check(cfg)
    stem = BasicStem(in_channels=input_shape.channels, out_channels=resnets.STEM_OUT_CHANNELS, norm=resnets.NORM)
    stages = [_build_stage(resnets, index) for index in range(4)]
    backbone = ResNet(stem, stages, out_features=resnets.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)
    if cfg.MODEL.CAPTION_RESNET.ZERO_INIT_RESIDUAL:
        _zero_last_norms(backbone)
    return backbone


@BACKBONE_REGISTRY.register()
def build_caption_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Build a feature pyramid (Lin et al. 2017) on `build_caption_resnet_backbone`, as Detectron2 does on its own."""
    return FPN(
        bottom_up=build_caption_resnet_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def _check(cfg: CfgNode) -> None:
    resnets, basic = cfg.MODEL.RESNETS, cfg.MODEL.RESNETS.DEPTH in _BASIC_DEPTHS
    _require(resnets, "DEPTH", resnets.DEPTH in BLOCKS_PER_STAGE, f"one of {list(BLOCKS_PER_STAGE)}")
    _require(resnets, "RES5_DILATION", resnets.RES5_DILATION in ((1,) if basic else (1, 2)), "1, or 2 from depth 50 on")
    _require(resnets, "NUM_GROUPS", not basic or resnets.NUM_GROUPS == 1, "1 below depth 50")
    _require(resnets, "DEFORM_ON_PER_STAGE", not (basic and any(resnets.DEFORM_ON_PER_STAGE)), "False below depth 50")
    zero_init = cfg.MODEL.CAPTION_RESNET.ZERO_INIT_RESIDUAL
    _require(resnets, "NORM", bool(resnets.NORM) or not zero_init, "a norm, for CAPTION_RESNET.ZERO_INIT_RESIDUAL")


def _require(resnets: CfgNode, key: str, holds: bool, expected: str) -> None:
    if not holds:
        raise UserError(
            f"MODEL.RESNETS.{key} is {resnets[key]!r} (depth {resnets.DEPTH}), but must be {expected}. "
            f"Set MODEL.RESNETS.{key} in the config or on the command line."
        )


def _build_stage(resnets: CfgNode, index: int) -> list[nn.Module]:
    widening = 2**index
    num_blocks = BLOCKS_PER_STAGE[resnets.DEPTH][index]
    dilation = resnets.RES5_DILATION if index == 3 else 1
    stride = 1 if index == 0 or dilation == 2 else 2
    return ResNet.make_stage(
        num_blocks=num_blocks,
        stride_per_block=[stride] + [1] * (num_blocks - 1),
        in_channels=resnets.RES2_OUT_CHANNELS * widening // 2 if index else resnets.STEM_OUT_CHANNELS,
        out_channels=resnets.RES2_OUT_CHANNELS * widening,
        norm=resnets.NORM,
        **_block(resnets, index, dilation),
    )


def _block(resnets: CfgNode, index: int, dilation: int) -> dict[str, Any]:
    """Return the class of a stage's blocks and what only that class takes."""
    if resnets.DEPTH in _BASIC_DEPTHS:
        return {"block_class": BasicBlock}
    block: dict[str, Any] = {
        "block_class": BottleneckBlock,
        "bottleneck_channels": resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP * 2**index,
        "num_groups": resnets.NUM_GROUPS,
        "stride_in_1x1": resnets.STRIDE_IN_1X1,
        "dilation": dilation,
    }
    if resnets.DEFORM_ON_PER_STAGE[index]:
        block["block_class"] = DeformBottleneckBlock
        block["deform_modulated"] = resnets.DEFORM_MODULATED
        block["deform_num_groups"] = resnets.DEFORM_NUM_GROUPS
    return block


def _zero_last_norms(backbone: ResNet) -> None:
    for block in (block for stage in backbone.stages for block in stage):
        last = block.conv2 if isinstance(block, BasicBlock) else block.conv3
        nn.init.zeros_(last.norm.weight)
