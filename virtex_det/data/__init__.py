"""Datasets, tokenizer, mappers and loaders."""

from virtex_det.data.build import MAPPER_REGISTRY, build_test_loader, build_train_loader, load_train_dicts
from virtex_det.data.caption_mapper import CaptionMapper
from virtex_det.data.classification_mapper import ClassificationMapper
from virtex_det.data.cluster_mapper import ClusterMapper
from virtex_det.data.concept_mapper import ConceptMapper
from virtex_det.data.detection_mapper import DetectionMapper
from virtex_det.data.masked_caption_mapper import MaskedCaptionMapper
from virtex_det.data.multilabel_mapper import MultilabelMapper
from virtex_det.data.narrative_mapper import NarrativeMapper
from virtex_det.data.tokenizer import SentencePieceTokenizer, train_tokenizer

__all__ = [
    "MAPPER_REGISTRY",
    "CaptionMapper",
    "ClassificationMapper",
    "ClusterMapper",
    "ConceptMapper",
    "DetectionMapper",
    "MaskedCaptionMapper",
    "MultilabelMapper",
    "NarrativeMapper",
    "SentencePieceTokenizer",
    "build_test_loader",
    "build_train_loader",
    "load_train_dicts",
    "train_tokenizer",
]
