"""Bicaptioning (VirTex): predict a caption token by token, from the image, in both directions."""

import copy
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from virtex_det.modeling.pretraining.image_model import ImageModel
from virtex_det.modeling.textual import TransformerDecoderTextualHead


@META_ARCH_REGISTRY.register()
class BicaptioningModel(ImageModel):
    """A ResNet and two transformer decoders, trained to write captions forwards and backwards (VirTex, sec. 3).

    The decoders differ only in their transformer: image projection, embedding and output are one and the same.

    Args:
        backbone: has a feature "res5".
        textual: the forward decoder; the backward one starts as its copy.
        pixel_mean: per channel, in the images' units (0..255).
        pixel_std: likewise.
    """

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
        self.backward_textual = copy.deepcopy(textual)
        self.backward_textual.visual_projection = textual.visual_projection
        self.backward_textual.embedding = textual.embedding
        self.backward_textual.output = textual.output

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        backbone = build_backbone(cfg)
        textual = TransformerDecoderTextualHead(
            visual_feature_size=backbone.output_shape()["res5"].channels,
            vocab_size=cfg.MODEL.TEXTUAL.VOCAB_SIZE,
            hidden_size=cfg.MODEL.TEXTUAL.HIDDEN_SIZE,
            num_layers=cfg.MODEL.TEXTUAL.NUM_LAYERS,
            attention_heads=cfg.MODEL.TEXTUAL.ATTENTION_HEADS,
            feedforward_size=cfg.MODEL.TEXTUAL.FEEDFORWARD_SIZE,
            dropout=cfg.MODEL.TEXTUAL.DROPOUT,
            norm_first=cfg.MODEL.TEXTUAL.NORM_FIRST,
            init_std=cfg.MODEL.TEXTUAL.INIT_STD,
            max_length=cfg.INPUT.CAPTION.MAX_LENGTH,
        )
        return {
            "backbone": backbone,
            "textual": textual,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the two losses, in training and in evaluation alike.

        Args:
            batched_inputs: examples with an "image" (3, S, S) and "caption_tokens" (L,), from [SOS] to [EOS].

        Returns:
            "loss_captioning_forward" and "loss_captioning_backward": mean cross-entropy per token.
        """
        memory = self.textual.project(self.visual_grid(batched_inputs))
        captions = [example["caption_tokens"].to(self.device) for example in batched_inputs]
        return {
            "loss_captioning_forward": self._loss(self.textual, captions, memory),
            "loss_captioning_backward": self._loss(self.backward_textual, [c.flip(0) for c in captions], memory),
        }

    @staticmethod
    def _loss(head: TransformerDecoderTextualHead, captions: list[Tensor], memory: Tensor) -> Tensor:
        tokens = pad_sequence(captions, batch_first=True, padding_value=head.padding_idx)
        targets = tokens[:, 1:]
        has_target = targets != head.padding_idx
        features = head(tokens[:, :-1], memory)  # shape: (captions, length - 1, hidden)
        logits = head.output(features[has_target])  # shape: (targets, vocabulary)
        return F.cross_entropy(logits, targets[has_target])
