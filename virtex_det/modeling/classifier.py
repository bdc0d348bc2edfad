"""Image classification: a linear probe with a frozen backbone, fine-tuning without."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from virtex_det.modeling.pretraining.image_model import ImageModel, TargetLosses, feature_channels


@META_ARCH_REGISTRY.register()
class ImageClassifier(ImageModel):
    """A ResNet, global average pooling and a linear classifier.

    MODEL.BACKBONE.FREEZE_AT 5 freezes the whole backbone, the statistics of its norms included.

    Args:
        backbone: has a feature "res5".
        num_classes: labels are 0 to num_classes - 1.
        pixel_mean: per channel, in the images' units (0..255).
        pixel_std: likewise.

    Example:
        >>> import virtex_det as vd
        >>> from virtex_det.modeling import build_model
        >>> changes = {"MODEL.DEVICE": "cpu", "MODEL.CLASSIFIER.NUM_CLASSES": 10}
        >>> cfg = vd.load_config("probes/_base_image_classifier_R_50.yaml", changes)
        >>> model = build_model(cfg).eval()
        >>> model([{"image": torch.zeros(3, 64, 64)}])[0]["scores"].shape
        torch.Size([10])
    """

    target = "label"
    mapper = "ClassificationMapper"

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        super().__init__(backbone, pixel_mean, pixel_std)
        self.classifier = nn.Linear(feature_channels(backbone), num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return super().from_config(cfg) | {"num_classes": cfg.MODEL.CLASSIFIER.NUM_CLASSES}

    def image_features(self, batched_inputs: Sequence[dict[str, Any]]) -> Tensor:
        """Return the features to classify: the average of res5, (images, channels)."""
        # shape: (images, channels, height, width)
        grid = self.visual_grid(batched_inputs)
        return grid.mean(dim=(2, 3))

    def inference(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return each image's "scores" (classes,), and its "losses" where it has a label."""
        scores = self._scores(batched_inputs)
        outputs = self.by_image(self._losses(scores, batched_inputs), batched_inputs)
        for output, image_scores in zip(outputs, scores, strict=True):
            output["scores"] = image_scores
        return outputs

    def target_losses(self, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, TargetLosses]:
        """Return the cross-entropy of each image that has a "label", an int counted from 0."""
        return self._losses(self._scores(batched_inputs), batched_inputs)

    def _scores(self, batched_inputs: Sequence[dict[str, Any]]) -> Tensor:
        # shape: (images, classes)
        return self.classifier(self.image_features(batched_inputs))

    def _losses(
        self, scores: Tensor, batched_inputs: Sequence[dict[str, Any]]
    ) -> dict[str, TargetLosses]:
        images = [index for index, example in enumerate(batched_inputs) if self.target in example]
        labels = [batched_inputs[index][self.target] for index in images]
        rows, targets = torch.tensor([images, labels], dtype=torch.int64, device=self.device)
        losses = F.cross_entropy(scores[rows], targets, reduction="none")
        return {"loss_classification": TargetLosses(losses, rows)}
