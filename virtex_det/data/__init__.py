"""Datasets, tokenizers, mappers and loaders."""

from virtex_det.data.build import MAPPER_REGISTRY, build_test_loader, build_train_loader
from virtex_det.data.images import read_picture
from virtex_det.data.mappers import (
    CaptionMapper,
    ClassificationMapper,
    ClusterMapper,
    ConceptMapper,
    DetectionMapper,
    MaskedCaptionMapper,
    MultilabelMapper,
    NarrativeMapper,
    RegionMapper,
)
from virtex_det.data.tokenizer import SentencePieceTokenizer, train_tokenizer
from virtex_det.data.training_set import load_train_dicts

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
    "RegionMapper",
    "SentencePieceTokenizer",
    "build_test_loader",
    "build_train_loader",
    "load_train_dicts",
    "read_picture",
    "train_tokenizer",
]
