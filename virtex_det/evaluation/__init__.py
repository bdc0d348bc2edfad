"""Box and mask AP on COCO, LVIS and VOC; losses and caption metrics of pretraining models."""

from virtex_det.evaluation.build import build_evaluator
from virtex_det.evaluation.captions import CaptionEvaluator
from virtex_det.evaluation.detection.results_file import evaluate

__all__ = ["CaptionEvaluator", "build_evaluator", "evaluate"]
