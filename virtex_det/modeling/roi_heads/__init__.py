"""Heads over regions of interest, registered with Detectron2."""

from virtex_det.modeling.roi_heads.caption_res5 import CaptionRes5ROIHeads
from virtex_det.modeling.roi_heads.res5_extra_norm import Res5ROIHeadsExtraNorm

__all__ = ["CaptionRes5ROIHeads", "Res5ROIHeadsExtraNorm"]
