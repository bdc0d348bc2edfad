"""Warnings of keys that name something, but match nothing, so that a run goes on without them."""

import logging
import re
from collections.abc import Iterator

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

from virtex_det.config.mappers import OURS, mapper_name
from virtex_det.solver.build import is_in_backbone

logger = logging.getLogger(__name__)

# Of these files, which models and mappers of ours read them.
_WITH_TEXT_ENCODER = ("ICMLMModel", "LocTexModel")
_WITH_CONCEPTS = ("ConceptMapper", "NarrativeMapper", "RegionMapper")
_WITH_CLUSTERS = ("ClusterMapper",)
_STOCK_RESNETS = (
    "build_resnet_backbone",
    "build_resnet_fpn_backbone",
    "build_retinanet_resnet_fpn_backbone",
)
# VirTex's NO_DECAY is about layers of text, which these models of its recipe do not have.
_WITHOUT_TEXT = ("MultilabelClassificationModel", "TagPredictionModel", "TokenClassificationModel")


def warn_of_idle_keys(cfg: CfgNode, model: nn.Module) -> None:
    """Log a line for each pattern that matches no parameter, and for names that nothing reads.

    Args:
        cfg: the full config of a training.
        model: its model; only the names of the parameters are read.
    """
    for message in (*_patterns(cfg, model), *_weights(cfg), *_files(cfg), *_varieties(cfg)):
        logger.warning(message)


def _patterns(cfg: CfgNode, model: nn.Module) -> Iterator[str]:
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    solver = cfg.SOLVER
    if solver.NO_DECAY and not any(re.search(solver.NO_DECAY, name) for name in names):
        message = (
            f"SOLVER.NO_DECAY {solver.NO_DECAY!r} matches none of the {len(names)} parameters of "
            f"{cfg.MODEL.META_ARCHITECTURE}, such as {names[-1] if names else 'none'}: it exempts "
            "nothing from weight decay"
        )
        if cfg.MODEL.META_ARCHITECTURE in _WITHOUT_TEXT:
            logger.info(message)
        else:
            yield message
    if solver.BACKBONE_MULTIPLIER != 1 and not any(map(is_in_backbone, names)):
        yield (
            f"SOLVER.BACKBONE_MULTIPLIER {solver.BACKBONE_MULTIPLIER} has no effect: no parameter "
            "that is trained is of the backbone"
        )


def _weights(cfg: CfgNode) -> Iterator[str]:
    model = cfg.MODEL
    for name in ("WEIGHTS_FORMAT", "WEIGHTS_PREFIX", "FOLLOW_WEIGHTS"):
        if model[name] and not model.WEIGHTS:
            yield f"MODEL.{name} {model[name]} has no effect: MODEL.WEIGHTS is empty"


def _files(cfg: CfgNode) -> Iterator[str]:
    """Yield a message for each file that a model or a mapper of ours does not read."""
    name, mapper, caption = cfg.MODEL.META_ARCHITECTURE, mapper_name(cfg), cfg.INPUT.CAPTION
    module = META_ARCH_REGISTRY.get(name).__module__
    is_known = module.startswith(("virtex_det.", "detectron2."))
    if cfg.MODEL.TEXT_ENCODER.WEIGHTS and is_known and name not in _WITH_TEXT_ENCODER:
        yield (
            f"MODEL.TEXT_ENCODER.WEIGHTS {cfg.MODEL.TEXT_ENCODER.WEIGHTS} has no effect: {name} "
            f"has no text encoder; {' and '.join(_WITH_TEXT_ENCODER)} have one"
        )
    for key, readers in {"CONCEPTS": _WITH_CONCEPTS, "CLUSTERS": _WITH_CLUSTERS}.items():
        is_read = mapper in readers or (key == "CONCEPTS" and caption.HIDE_OTHER_WORDS)
        if caption[key] and mapper in OURS and not is_read:
            yield (
                f"INPUT.CAPTION.{key} {caption[key]} has no effect: {mapper}, the mapper of "
                f"{name}, does not read it"
            )


def _varieties(cfg: CfgNode) -> Iterator[str]:
    if cfg.MODEL.BACKBONE.NAME not in _STOCK_RESNETS:
        return
    for name, plain in {"STEM": "basic", "DOWNSAMPLE": "conv", "BLOCKS": ()}.items():
        value = cfg.MODEL.CAPTION_RESNET[name]
        if value != plain and list(value) != list(plain):
            yield (
                f"MODEL.CAPTION_RESNET.{name} {value} has no effect: {cfg.MODEL.BACKBONE.NAME} is "
                "Detectron2's own ResNet. build_caption_resnet_backbone and "
                "build_caption_resnet_fpn_backbone read it"
            )
