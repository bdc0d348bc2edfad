"""Pretraining tasks; each is a Detectron2 meta-architecture."""

from virtex_det.modeling.pretraining.captioning import BicaptioningModel, CaptioningModel
from virtex_det.modeling.pretraining.classification import (
    MultilabelClassificationModel,
    TokenClassificationModel,
)
from virtex_det.modeling.pretraining.icmlm import ICMLMModel
from virtex_det.modeling.pretraining.locca import LocCaModel
from virtex_det.modeling.pretraining.loctex import LocTexModel
from virtex_det.modeling.pretraining.masked_lm import MaskedLanguageModel
from virtex_det.modeling.pretraining.tag_prediction import TagPredictionModel

__all__ = [
    "BicaptioningModel",
    "CaptioningModel",
    "ICMLMModel",
    "LocCaModel",
    "LocTexModel",
    "MaskedLanguageModel",
    "MultilabelClassificationModel",
    "TagPredictionModel",
    "TokenClassificationModel",
]
