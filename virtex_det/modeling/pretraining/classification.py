"""Multi-label classification (VirTex): predict an image's tokens or object classes, in no order."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone

from virtex_det.data.vocabulary import vocabulary_size
from virtex_det.errors import UserError
from virtex_det.modeling.pretraining.image_model import ImageModel, TargetLosses, feature_channels
from virtex_det.modeling.pretraining.label_sets import (
    LabelSetLoss,
    RareLabelsLoss,
    equal_share_losses,
    label_presence,
)
from virtex_det.modeling.textual import LinearTextualHead

SPECIAL_TOKENS = 4  # unknown and padding, [SOS], [EOS], [MASK]: the first ids of a vocabulary
TOKEN_WEIGHTINGS = ("equal", "rare")
BACKGROUND = 1  # label 0 of the published model; no image has it


class LabelSetModel(ImageModel):
    """A ResNet and a linear classifier that learns a set of labels per image.

    Args:
        backbone: has a feature "res5".
        textual: the classifier.
        pixel_mean: per channel, in the images' units (0..255).
        pixel_std: likewise.
        label_set_loss: loss of each image; by default cross-entropy with equal shares per label.
    """

    loss_name: str
    num_ignored: int  # the first labels, which are not predicted

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        textual: LinearTextualHead,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        label_set_loss: LabelSetLoss = equal_share_losses,
    ):
        super().__init__(backbone, pixel_mean, pixel_std)
        self.textual = textual
        self.label_set_loss = label_set_loss

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        common = super().from_config(cfg)
        channels = feature_channels(common["backbone"])
        return common | {"textual": LinearTextualHead(channels, cls.num_labels(cfg))}

    @classmethod
    @abstractmethod
    def num_labels(cls, cfg: CfgNode) -> int:
        """Return the number of labels, the ignored ones included."""

    def target_losses(self, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, TargetLosses]:
        """Return the loss of each image that has labels.

        Args:
            batched_inputs: examples with an int64 tensor (n,) of labels, in any order; repeats
                count once. Of several captions an image has the labels of all.
        """
        # shape: (images, labels)
        logits = self.textual(self.visual_grid(batched_inputs))
        present = label_presence(self.joined(batched_inputs, self.target), logits.shape[1])
        present[:, : self.num_ignored] = False
        return {self.loss_name: self.label_set_loss(logits, present)}


@META_ARCH_REGISTRY.register()
class TokenClassificationModel(LabelSetModel):
    """Predict which tokens the caption has (VirTex's "token classification").

    With MODEL.TOKEN_CLASSIFICATION.WEIGHTING "rare" it is SuperClass: rare tokens weigh more.
    """

    target = "caption_tokens"
    mapper = "CaptionMapper"
    other_mappers = ("NarrativeMapper",)
    loss_name = "loss_token_classification"
    num_ignored = SPECIAL_TOKENS

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor.

        Raises:
            UserError: the config names an unknown weighting, or the tokenizer cannot be read.
        """
        common, weighting = super().from_config(cfg), cfg.MODEL.TOKEN_CLASSIFICATION.WEIGHTING
        if weighting not in TOKEN_WEIGHTINGS:
            raise UserError(
                f"MODEL.TOKEN_CLASSIFICATION.WEIGHTING is {weighting!r}; expected one of "
                f"{', '.join(TOKEN_WEIGHTINGS)}."
            )
        if weighting == "equal":
            return common
        return common | {"label_set_loss": RareLabelsLoss(cls.num_labels(cfg))}

    @classmethod
    def num_labels(cls, cfg: CfgNode) -> int:
        """Return the size of the vocabulary."""
        return vocabulary_size(cfg)


@META_ARCH_REGISTRY.register()
class MultilabelClassificationModel(LabelSetModel):
    """Predict which object classes the image has, counted from 1; output 0 is the background.

    No image has label 0; the published model has an output for it.
    """

    target = "labels"
    mapper = "MultilabelMapper"
    loss_name = "loss_multilabel_classification"
    num_ignored = BACKGROUND

    @classmethod
    def num_labels(cls, cfg: CfgNode) -> int:
        """Return the number of classes and the background."""
        return cfg.MODEL.CLASSIFIER.NUM_CLASSES + BACKGROUND
