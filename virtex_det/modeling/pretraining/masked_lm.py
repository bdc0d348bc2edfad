"""Masked language modelling (VirTex): predict masked tokens from the image and the other tokens."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from torch.nn import functional as F

from virtex_det.modeling.pretraining.image_model import ImageModel, TargetLosses, per_caption
from virtex_det.modeling.textual import TransformerDecoderTextualHead, build_textual_head
from virtex_det.modeling.textual.padding import pad_captions


@META_ARCH_REGISTRY.register()
class MaskedLanguageModel(ImageModel):
    """A ResNet and a transformer that predicts the masked tokens of a caption.

    One of VirTex's pretraining task ablations.

    Args:
        backbone: has a feature "res5".
        textual: the decoder of captioning; here every token attends to all tokens.
        pixel_mean: per channel, in the images' units (0..255).
        pixel_std: likewise.
    """

    target = "masked_labels"
    mapper = "MaskedCaptionMapper"
    other_mappers = ("ConceptMapper",)

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        textual: TransformerDecoderTextualHead,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        super().__init__(backbone, pixel_mean, pixel_std)
        self.textual = textual

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        common = super().from_config(cfg)
        return common | {
            "textual": build_textual_head(cfg, common["backbone"].output_shape()["res5"].channels)
        }

    def target_losses(self, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, TargetLosses]:
        """Return the cross-entropy of each masked token.

        Args:
            batched_inputs: examples with "caption_tokens" (L,), some of them masked, and
                "masked_labels" (L,): the true token at masked positions, padding elsewhere.
        """
        head = self.textual
        captioned, images = self.captions_of(batched_inputs)
        # shape: (captions, longest)
        tokens, padding = pad_captions(self.on_device(captioned, "caption_tokens"))
        labels, _ = pad_captions(self.on_device(captioned, self.target))
        rows, positions = labels.nonzero(as_tuple=True)
        # shape: (captions, cells, hidden)
        memory = per_caption(head.project(self.visual_grid(batched_inputs)), images)
        # shape: (targets, hidden)
        features = head.see_all(tokens, padding, memory)[rows, positions]
        values = F.cross_entropy(head.output(features), labels[rows, positions], reduction="none")
        return {"loss_masked_lm": TargetLosses(values, images[rows])}
