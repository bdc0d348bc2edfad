"""Inference with trained models: detections, captions and attention, and their pages; export."""

from virtex_det.inference.captioning import Caption, Captioner
from virtex_det.inference.detector import Detector
from virtex_det.inference.image_detections import ImageDetections
from virtex_det.inference.prediction import Predictor

__all__ = ["Caption", "Captioner", "Detector", "ImageDetections", "Predictor"]
