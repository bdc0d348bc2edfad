"""Box and mask AP on COCO, LVIS and VOC."""

from virtex_det.evaluation.build import build_evaluator

__all__ = ["build_evaluator"]
