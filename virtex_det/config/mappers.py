"""The mapper of a config: DATALOADER.MAPPER, or the default of the meta-architecture."""

from collections.abc import Iterator
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

# Mappers of this package; users may register others.
OURS = (
    "DetectionMapper",
    "DatasetMapper",
    "CaptionMapper",
    "MaskedCaptionMapper",
    "ConceptMapper",
    "ClusterMapper",
    "NarrativeMapper",
    "RegionMapper",
    "MultilabelMapper",
    "ClassificationMapper",
)
_OF_DETECTORS = ("DetectionMapper", "DatasetMapper")
_OF_PIXEL_CLASSES = ("PanopticFPN", "SemanticSegmentor")


def mapper_name(cfg: CfgNode) -> str:
    """Return the name of the mapper that makes the training examples of a config's model."""
    return cfg.DATALOADER.MAPPER or (_mappers_of(cfg) or _OF_DETECTORS)[0]


def name_mapper(cfg: CfgNode) -> None:
    """Set DATALOADER.MAPPER to the default mapper's name if it is empty, for files and records."""
    cfg.DATALOADER.MAPPER = mapper_name(cfg)


def unfit_mapper(cfg: CfgNode) -> Iterator[str]:
    """Yield an error if DATALOADER.MAPPER is a mapper of virtex_det that does not fit the model."""
    known, named = _mappers_of(cfg), cfg.DATALOADER.MAPPER
    if known and named in OURS and named not in known:
        yield (
            f"DATALOADER.MAPPER is {named}, but {cfg.MODEL.META_ARCHITECTURE} learns from the "
            f"examples of {' or '.join(known)}. Leave DATALOADER.MAPPER empty, which takes "
            f"{known[0]}."
        )


def _mappers_of(cfg: CfgNode) -> tuple[str, ...]:
    """Return the mappers that fit the model, the default first; empty if they are unknown.

    A class names them by a class method ``mappers(cfg)`` or an attribute ``mapper``.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    architecture: Any = META_ARCH_REGISTRY.get(name) if name in META_ARCH_REGISTRY else None
    if hasattr(architecture, "mappers"):
        return tuple(architecture.mappers(cfg))
    if hasattr(architecture, "mapper"):
        return (architecture.mapper,)
    is_detectron2s = getattr(architecture, "__module__", "").startswith("detectron2.")
    if is_detectron2s and (cfg.MODEL.KEYPOINT_ON or name in _OF_PIXEL_CLASSES):
        return ("DatasetMapper",)
    return _OF_DETECTORS if is_detectron2s else ()
