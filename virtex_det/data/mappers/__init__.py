"""Mappers from a dataset dict to an example, one per kind of target (DATALOADER.MAPPER)."""

from virtex_det.data.mappers.caption import CaptionMapper
from virtex_det.data.mappers.classification import ClassificationMapper
from virtex_det.data.mappers.cluster import ClusterMapper
from virtex_det.data.mappers.concept import ConceptMapper
from virtex_det.data.mappers.detection import DetectionMapper
from virtex_det.data.mappers.masked_caption import MaskedCaptionMapper
from virtex_det.data.mappers.multilabel import MultilabelMapper
from virtex_det.data.mappers.narrative import NarrativeMapper
from virtex_det.data.mappers.region import RegionMapper

__all__ = [
    "CaptionMapper",
    "ClassificationMapper",
    "ClusterMapper",
    "ConceptMapper",
    "DetectionMapper",
    "MaskedCaptionMapper",
    "MultilabelMapper",
    "NarrativeMapper",
    "RegionMapper",
]
