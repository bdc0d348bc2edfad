"""Box and mask AP on COCO, LVIS and VOC; losses and caption metrics of pretraining models."""

from virtex_det.evaluation.build import build_evaluator
from virtex_det.evaluation.captions import CaptionEvaluator

__all__ = ["CaptionEvaluator", "build_evaluator"]
