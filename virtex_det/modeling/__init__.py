"""Networks; importing this registers them with Detectron2."""

from virtex_det.modeling.backbone import (
    build_caption_resnet_backbone,
    build_caption_resnet_fpn_backbone,
)
from virtex_det.modeling.bf16 import use_bf16
from virtex_det.modeling.build import build_model
from virtex_det.modeling.classifier import ImageClassifier
from virtex_det.modeling.poolers import GatherROIAlign, use_gather_roi_align
from virtex_det.modeling.pretraining import BicaptioningModel
from virtex_det.modeling.roi_heads import CaptionRes5ROIHeads, Res5ROIHeadsExtraNorm
from virtex_det.modeling.textual import TransformerDecoderTextualHead

__all__ = [
    "BicaptioningModel",
    "CaptionRes5ROIHeads",
    "GatherROIAlign",
    "ImageClassifier",
    "Res5ROIHeadsExtraNorm",
    "TransformerDecoderTextualHead",
    "build_caption_resnet_backbone",
    "build_caption_resnet_fpn_backbone",
    "build_model",
    "use_bf16",
    "use_gather_roi_align",
]
