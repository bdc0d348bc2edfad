"""Trained models on pictures: detections, captions and attention, and the pages that show them."""

from virtex_det.inference.prediction import Predictor

__all__ = ["Predictor"]
