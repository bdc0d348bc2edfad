"""Classification of whole images: the linear probe when the backbone is frozen, fine-tuning when it is not."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from virtex_det.modeling.pretraining.image_model import ImageModel, TargetLosses


@META_ARCH_REGISTRY.register()
class ImageClassifier(ImageModel):
    """A ResNet, the average over its last feature map, and a linear classifier.

    MODEL.BACKBONE.FREEZE_AT 5 freezes the whole backbone, the statistics of its norms with it.

    Args:
        backbone: has a feature "res5".
        num_classes: labels are 0 to num_classes - 1.
        pixel_mean: per channel, in the images' units (0..255).
        pixel_std: likewise.
    """

    target = "label"
    mapper = "ClassificationMapper"

    @configurable
    def __init__(
        self, *, backbone: Backbone, num_classes: int, pixel_mean: Sequence[float], pixel_std: Sequence[float]
    ):
        super().__init__(backbone, pixel_mean, pixel_std)
        self.classifier = nn.Linear(backbone.output_shape()["res5"].channels, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return super().from_config(cfg) | {"num_classes": cfg.MODEL.CLASSIFIER.NUM_CLASSES}

    def image_features(self, batched_inputs: Sequence[dict[str, Any]]) -> Tensor:
        """Return what is classified: the average of res5, (images, channels)."""
        return self.visual_grid(batched_inputs).mean(dim=(2, 3))

    def inference(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return for each image its "scores" (classes,), and its "losses" where it has a label."""
        scores = self._scores(batched_inputs)
        outputs = self.by_image(self._losses(scores, batched_inputs), batched_inputs)
        return [output | {"scores": of_image} for output, of_image in zip(outputs, scores, strict=True)]

    def target_losses(self, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, TargetLosses]:
        """Return the cross-entropy of each image that has a "label", from 0 on."""
        return self._losses(self._scores(batched_inputs), batched_inputs)

    def _scores(self, batched_inputs: Sequence[dict[str, Any]]) -> Tensor:
        return self.classifier(self.image_features(batched_inputs))

    def _losses(self, scores: Tensor, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, TargetLosses]:
        images = [index for index, example in enumerate(batched_inputs) if self.target in example]
        labels = [batched_inputs[index][self.target] for index in images]
        rows, targets = torch.tensor([images, labels], dtype=torch.int64, device=self.device)
        losses = F.cross_entropy(scores[rows], targets, reduction="none")
        return {"loss_classification": TargetLosses(losses, rows)}
