"""Pretraining tasks, each a meta-architecture of Detectron2."""

from virtex_det.modeling.pretraining.bicaptioning import BicaptioningModel

__all__ = ["BicaptioningModel"]
