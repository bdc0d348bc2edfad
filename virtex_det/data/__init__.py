"""Datasets, tokenizer, mappers and loaders."""

from virtex_det.data.build import MAPPER_REGISTRY, build_test_loader, build_train_loader, load_train_dicts
from virtex_det.data.caption_mapper import CaptionMapper
from virtex_det.data.detection_mapper import DetectionMapper
from virtex_det.data.tokenizer import SentencePieceTokenizer, train_tokenizer

__all__ = [
    "MAPPER_REGISTRY",
    "CaptionMapper",
    "DetectionMapper",
    "SentencePieceTokenizer",
    "build_test_loader",
    "build_train_loader",
    "load_train_dicts",
    "train_tokenizer",
]
