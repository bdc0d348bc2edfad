"""Box and mask AP on COCO, LVIS and VOC: validated, matched image by image, merged on disk."""

from virtex_det.evaluation.detection.average_precision import AveragePrecision
from virtex_det.evaluation.detection.detections import Detections
from virtex_det.evaluation.detection.evaluator import DetectionEvaluator
from virtex_det.evaluation.detection.ground_truth import GroundTruth

__all__ = ["AveragePrecision", "DetectionEvaluator", "Detections", "GroundTruth"]
