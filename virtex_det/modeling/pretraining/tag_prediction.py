"""Tag prediction (ICMLM's baselines): predict an image's concepts, or its caption's cluster."""

import math
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

from virtex_det.config.mappers import mapper_name
from virtex_det.data.clusters import CaptionClusters
from virtex_det.data.concepts import ConceptSet
from virtex_det.errors import UserError
from virtex_det.modeling.pretraining.classification import LabelSetModel
from virtex_det.modeling.pretraining.label_sets import LABEL_SET_LOSSES, LabelSetLoss
from virtex_det.modeling.textual import LinearTextualHead


@META_ARCH_REGISTRY.register()
class TagPredictionModel(LabelSetModel):
    """A ResNet and a linear classifier that predicts the tags of an image.

    With ConceptMapper, the default, it is TP_Postag: the tags are the concept words of the caption.
    With ClusterMapper, the default where only INPUT.CAPTION.CLUSTERS is set, it is TP_Cluster: the
    tag is the caption's cluster. TP_Label, whose tags are annotated object classes, is
    MultilabelClassificationModel.

    We do not know the paper's loss. The default is VirTex's, a softmax against equal shares; with
    MODEL.TAG_PREDICTION.LOSS "sigmoid" each tag is a binary decision of its own.
    """

    target = "tags"
    mapper = "ConceptMapper"
    other_mappers = ("ClusterMapper",)
    loss_name = "loss_tag_prediction"
    num_ignored = 0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor.

        Raises:
            UserError: the config names an unknown loss, or the file of the tags cannot be read.
        """
        common = super().from_config(cfg)
        return common | {"label_set_loss": build_tag_loss(cfg, common["textual"])}

    @classmethod
    def mappers(cls, cfg: CfgNode) -> tuple[str, ...]:
        """Return the mapper whose file the config names, then the other one."""
        text = cfg.INPUT.CAPTION
        if text.CLUSTERS and not text.CONCEPTS:
            return ("ClusterMapper", "ConceptMapper")
        return ("ConceptMapper", "ClusterMapper")

    @classmethod
    def num_labels(cls, cfg: CfgNode) -> int:
        """Return the number of tags."""
        return num_tags(cfg)


def num_tags(cfg: CfgNode) -> int:
    """Return the number of tags in the mapper's file, which MODEL.TAG_PREDICTION.NUM_TAGS may say.

    Where it says it and the file is not here, as for a model that is built to be looked at, no file
    is needed.

    Raises:
        UserError: the file cannot be read, or has another number of tags.
    """
    stated, is_clusters = cfg.MODEL.TAG_PREDICTION.NUM_TAGS, mapper_name(cfg) == "ClusterMapper"
    key = "CLUSTERS" if is_clusters else "CONCEPTS"
    path = cfg.INPUT.CAPTION[key]
    if stated and not Path(path).is_file():
        return stated
    found = CaptionClusters.read(path).size if is_clusters else len(ConceptSet.read(path).concepts)
    if stated not in (0, found):
        raise UserError(
            f"MODEL.TAG_PREDICTION.NUM_TAGS is {stated}, but INPUT.CAPTION.{key} {path} has "
            f"{found} tags.\n"
            "Set MODEL.TAG_PREDICTION.NUM_TAGS 0, which takes what the file has; or name the file "
            "that it is of."
        )
    return found


def build_tag_loss(cfg: CfgNode, head: LinearTextualHead) -> LabelSetLoss:
    """Return the loss that MODEL.TAG_PREDICTION.LOSS names; for sigmoids, set the initial bias.

    The bias makes the expected number of predicted tags 1. Without it, it would be half of all
    tags, which takes long to unlearn (Lin et al. 2017, sec. 4.1).

    Raises:
        UserError: the config names an unknown loss.
    """
    loss = cfg.MODEL.TAG_PREDICTION.LOSS
    if loss not in LABEL_SET_LOSSES:
        raise UserError(
            f"MODEL.TAG_PREDICTION.LOSS is {loss!r}; expected one of {', '.join(LABEL_SET_LOSSES)}."
        )
    if loss == "sigmoid":
        nn.init.constant_(head.output.bias, -math.log(head.output.out_features))
    return LABEL_SET_LOSSES[loss]
