"""Backbones, registered with Detectron2."""

from virtex_det.modeling.backbone.caption_resnet import (
    build_caption_resnet_backbone,
    build_caption_resnet_fpn_backbone,
    build_res5,
)

__all__ = ["build_caption_resnet_backbone", "build_caption_resnet_fpn_backbone", "build_res5"]
