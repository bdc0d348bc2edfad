"""The one builder of ResNet backbones, for pretraining and transfer alike."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import (
    BasicBlock,
    BasicStem,
    BottleneckBlock,
    DeformBottleneckBlock,
)
from torch import nn

from virtex_det.errors import UserError
from virtex_det.modeling.backbone.layers import DeepStem, PooledConv2d

BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
_BASIC_DEPTHS = (18, 34)  # two 3x3 convolutions per block; deeper networks have bottlenecks
_STEMS = ("basic", "deep", "clip")
_DOWNSAMPLES = ("conv", "avg_shortcut", "clip")


@BACKBONE_REGISTRY.register()
def build_caption_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Build a ResNet from MODEL.RESNETS with the layers and names of Detectron2's builder.

    Detectron2's builder demands RES2_OUT_CHANNELS 64 for ResNet-18 and 34; here any width goes with
    any depth. MODEL.CAPTION_RESNET selects CLIP's ResNet (Radford et al. 2021, sec. 2.4), without
    its attention pool, or ResNet-C, D or S (He et al. 2019, sec. 4.2). Their stem has the layers
    `conv1` to `conv3`; all other names stay.

    Args:
        cfg: a config with MODEL.RESNETS, MODEL.CAPTION_RESNET and MODEL.BACKBONE.FREEZE_AT.
        input_shape: `channels` are the channels of the image.

    Returns:
        A backbone that returns the features MODEL.RESNETS.OUT_FEATURES by name.

    Raises:
        UserError: no such ResNet exists.

    Example:
        >>> from detectron2.layers import ShapeSpec
        >>> from virtex_det import get_cfg
        >>> cfg = get_cfg()
        >>> cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.OUT_FEATURES = 18, ["res5"]
        >>> backbone = build_caption_resnet_backbone(cfg, ShapeSpec(channels=3))
        >>> backbone.output_shape()["res5"].stride
        32
    """
    _check(cfg)
    stem = _build_stem(cfg, input_shape.channels)
    stages = [_build_stage(cfg, index) for index in range(4)]
    return ResNet(
        stem,
        stages,
        out_features=cfg.MODEL.RESNETS.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )


@BACKBONE_REGISTRY.register()
def build_caption_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Build a feature pyramid (Lin et al. 2017) on top of `build_caption_resnet_backbone`."""
    return FPN(
        bottom_up=build_caption_resnet_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def build_res5(cfg: CfgNode) -> nn.Sequential:
    """Build the last stage of `build_caption_resnet_backbone` alone, for the head of a C4 detector.

    Raises:
        UserError: no such ResNet exists.
    """
    _check(cfg)
    return nn.Sequential(*_build_stage(cfg, 3))


def _check(cfg: CfgNode) -> None:
    resnets, basic = cfg.MODEL.RESNETS, cfg.MODEL.RESNETS.DEPTH in _BASIC_DEPTHS
    _require(
        cfg, "RESNETS.DEPTH", resnets.DEPTH in BLOCKS_PER_STAGE, f"one of {list(BLOCKS_PER_STAGE)}"
    )
    _require(
        cfg,
        "RESNETS.RES5_DILATION",
        resnets.RES5_DILATION in ((1,) if basic else (1, 2)),
        "1, or 2 from depth 50 on",
    )
    _require(cfg, "RESNETS.NUM_GROUPS", not basic or resnets.NUM_GROUPS == 1, "1 below depth 50")
    _require(
        cfg,
        "RESNETS.DEFORM_ON_PER_STAGE",
        not (basic and any(resnets.DEFORM_ON_PER_STAGE)),
        "False below depth 50",
    )
    zero_init = cfg.MODEL.CAPTION_RESNET.ZERO_INIT_RESIDUAL
    _require(
        cfg,
        "RESNETS.NORM",
        bool(resnets.NORM) or not zero_init,
        "a norm, for CAPTION_RESNET.ZERO_INIT_RESIDUAL",
    )
    _check_variety(cfg)
    _check_head(cfg)


def _check_variety(cfg: CfgNode) -> None:
    resnets, variety = cfg.MODEL.RESNETS, cfg.MODEL.CAPTION_RESNET
    basic, down = resnets.DEPTH in _BASIC_DEPTHS, variety.DOWNSAMPLE
    _require(cfg, "CAPTION_RESNET.STEM", variety.STEM in _STEMS, f"one of {list(_STEMS)}")
    _require(cfg, "CAPTION_RESNET.DOWNSAMPLE", down in _DOWNSAMPLES, f"one of {list(_DOWNSAMPLES)}")
    _require(
        cfg,
        "CAPTION_RESNET.DOWNSAMPLE",
        not (basic and down == "clip"),
        "another one below depth 50",
    )
    counts = len(variety.BLOCKS) in (0, 4) and all(
        isinstance(n, int) and n > 0 for n in variety.BLOCKS
    )
    _require(
        cfg, "CAPTION_RESNET.BLOCKS", counts, "empty or four numbers of blocks, like (4, 6, 10, 6)"
    )
    halves = variety.STEM == "basic" or resnets.STEM_OUT_CHANNELS % 2 == 0
    _require(
        cfg, "RESNETS.STEM_OUT_CHANNELS", halves, f"even with CAPTION_RESNET.STEM {variety.STEM!r}"
    )
    undilated = down == "conv" or resnets.RES5_DILATION == 1
    _require(cfg, "RESNETS.RES5_DILATION", undilated, f"1 with CAPTION_RESNET.DOWNSAMPLE {down!r}")
    in_3x3 = down != "avg_shortcut" or basic or not resnets.STRIDE_IN_1X1
    _require(cfg, "RESNETS.STRIDE_IN_1X1", in_3x3, f"False with CAPTION_RESNET.DOWNSAMPLE {down!r}")


def _check_head(cfg: CfgNode) -> None:
    """Refuse Detectron2's C4 head where its res5 would differ from the backbone's other stages."""
    model, resnets = cfg.MODEL, cfg.MODEL.RESNETS
    is_detector = model.META_ARCHITECTURE == "GeneralizedRCNN"
    is_plain_head = is_detector and model.ROI_HEADS.NAME == "Res5ROIHeads"
    plain = (
        resnets.DEPTH not in _BASIC_DEPTHS
        and model.CAPTION_RESNET.DOWNSAMPLE == "conv"
        and _blocks(cfg)[3] == 3
    )
    expected = (
        "CaptionRes5ROIHeads or Res5ROIHeadsExtraNorm: Detectron2's own builds three plain "
        "bottlenecks"
    )
    holds = plain or not is_plain_head or "res5" in resnets.OUT_FEATURES
    _require(cfg, "ROI_HEADS.NAME", holds, expected)


def _require(cfg: CfgNode, key: str, holds: bool, expected: str) -> None:
    if not holds:
        section, name = key.split(".")
        raise UserError(
            f"MODEL.{key} is {cfg.MODEL[section][name]!r} (depth {cfg.MODEL.RESNETS.DEPTH}), but "
            f"must be {expected}. Set MODEL.{key} in the config or on the command line."
        )


def _blocks(cfg: CfgNode) -> tuple[int, ...]:
    return tuple(cfg.MODEL.CAPTION_RESNET.BLOCKS) or BLOCKS_PER_STAGE[cfg.MODEL.RESNETS.DEPTH]


def _build_stem(cfg: CfgNode, in_channels: int) -> CNNBlockBase:
    resnets, stem = cfg.MODEL.RESNETS, cfg.MODEL.CAPTION_RESNET.STEM
    if stem == "basic":
        return BasicStem(
            in_channels=in_channels, out_channels=resnets.STEM_OUT_CHANNELS, norm=resnets.NORM
        )
    pool = nn.AvgPool2d(2) if stem == "clip" else nn.MaxPool2d(3, stride=2, padding=1)
    return DeepStem(in_channels, resnets.STEM_OUT_CHANNELS, norm=resnets.NORM, pool=pool)


def _build_stage(cfg: CfgNode, index: int) -> list[CNNBlockBase]:
    resnets, downsample = cfg.MODEL.RESNETS, cfg.MODEL.CAPTION_RESNET.DOWNSAMPLE
    widening = 2**index
    num_blocks = _blocks(cfg)[index]
    dilation = resnets.RES5_DILATION if index == 3 else 1
    stride = 1 if index == 0 or dilation == 2 else 2
    stage = ResNet.make_stage(
        num_blocks=num_blocks,
        stride_per_block=[1 if downsample == "clip" else stride] + [1] * (num_blocks - 1),
        in_channels=resnets.RES2_OUT_CHANNELS * widening // 2
        if index
        else resnets.STEM_OUT_CHANNELS,
        out_channels=resnets.RES2_OUT_CHANNELS * widening,
        norm=resnets.NORM,
        **_block(resnets, index, dilation),
    )
    if stride == 2 and downsample != "conv":
        _put_pools(stage[0], downsample)
    if cfg.MODEL.CAPTION_RESNET.ZERO_INIT_RESIDUAL:
        _zero_last_norms(stage)
    return stage


def _put_pools(block: CNNBlockBase, downsample: str) -> None:
    """Replace a block's stride by average pools: in its shortcut, for CLIP before `conv3` too."""
    if downsample == "clip":
        block.stride = 2
        block.shortcut = PooledConv2d(block.shortcut, nn.AvgPool2d(2))
        block.conv3 = PooledConv2d(block.conv3, nn.AvgPool2d(2))
    else:
        # With ceil_mode an odd side is rounded up, as by a strided convolution. The average leaves
        # out pixels beyond the map.
        block.shortcut = PooledConv2d(block.shortcut, nn.AvgPool2d(2, ceil_mode=True))


def _block(resnets: CfgNode, index: int, dilation: int) -> dict[str, Any]:
    """Return the class of a stage's blocks, and the arguments that only this class takes."""
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


def _zero_last_norms(stage: list[CNNBlockBase]) -> None:
    for block in stage:
        last = block.conv2 if isinstance(block, BasicBlock) else block.conv3
        nn.init.zeros_(last.norm.weight)
