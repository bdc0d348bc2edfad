"""Masked language modelling (VirTex): predict masked tokens from the image and the other tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from virtex_det.modeling.pretraining.image_model import ImageModel, TargetLosses
from virtex_det.modeling.textual import TransformerDecoderTextualHead, build_textual_head


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
        captions = self.on_device(batched_inputs, "caption_tokens")
        # shape: (images, longest)
        tokens = pad_sequence(captions, batch_first=True, padding_value=head.padding_idx)
        labels = pad_sequence(self.on_device(batched_inputs, self.target), batch_first=True)
        lengths = torch.tensor([len(caption) for caption in captions], device=self.device)
        images, positions = (labels != head.padding_idx).nonzero(as_tuple=True)
        # shape: (images, cells, hidden)
        memory = head.project(self.visual_grid(batched_inputs))
        # shape: (targets, hidden)
        features = head.see_all(tokens, lengths, memory)[images, positions]
        values = F.cross_entropy(head.output(features), labels[images, positions], reduction="none")
        return {"loss_masked_lm": TargetLosses(values, images)}
