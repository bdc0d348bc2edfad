"""Captioning (VirTex): predict a caption token by token from the image, in one direction or both."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from virtex_det.modeling.pretraining.image_model import ImageModel, TargetLosses
from virtex_det.modeling.textual import TransformerDecoderTextualHead, build_textual_head
from virtex_det.modeling.textual.generation import END, Generated, build_caption_decoder

Decoder = Callable[[TransformerDecoderTextualHead, Tensor], Generated]


@META_ARCH_REGISTRY.register()
class CaptioningModel(ImageModel):
    """A ResNet and a transformer decoder, trained to write captions (VirTex's "forward captioning").

    In evaluation it writes them: each image's dict has "caption_tokens", without boundaries and padding, and the
    "log_probability" that the model gives them.

    Args:
        backbone: has a feature "res5".
        textual: the forward decoder.
        pixel_mean: per channel, in the images' units (0..255).
        pixel_std: likewise.
        decoder: writes captions with the forward decoder; None for losses alone.
    """

    target = "caption_tokens"
    mapper = "CaptionMapper"
    other_mappers = ("NarrativeMapper",)

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        textual: TransformerDecoderTextualHead,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        decoder: Decoder | None = None,
    ):
        super().__init__(backbone, pixel_mean, pixel_std)
        self.textual = textual
        self.decoder = decoder

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        common = super().from_config(cfg)
        textual = build_textual_head(cfg, common["backbone"].output_shape()["res5"].channels)
        return common | {"textual": textual, "decoder": build_caption_decoder(cfg)}

    def target_losses(self, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, TargetLosses]:
        """Return the cross-entropy of each token that follows another; "caption_tokens" are (L,), [SOS] to [EOS]."""
        memory = self.textual.project(self.visual_grid(batched_inputs))
        return self.caption_losses(self.on_device(batched_inputs, self.target), memory)

    def inference(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return for each image its caption, and its "losses" where it has one already."""
        if self.decoder is None:
            return super().inference(batched_inputs)
        memory = self.textual.project(self.visual_grid(batched_inputs))
        outputs: list[dict[str, Any]] = [{} for _ in batched_inputs]
        if any(self.target in example for example in batched_inputs):
            losses = self.caption_losses(self.on_device(batched_inputs, self.target), memory)
            outputs = self.by_image(losses, batched_inputs)
        tokens, log_probabilities = self.decoder(self.textual, memory)
        best = zip(tokens[:, 0].cpu(), log_probabilities[:, 0].tolist(), strict=True)
        for output, (caption, log_probability) in zip(outputs, best, strict=True):
            output["caption_tokens"] = caption[caption > END]
            output["log_probability"] = log_probability
        return outputs

    def caption_losses(self, captions: list[Tensor], memory: Tensor) -> dict[str, TargetLosses]:
        """Return the losses of captions (length,), given the image: `textual.project` of the grid."""
        return {"loss_captioning_forward": _next_token_losses(self.textual, captions, memory)}


@META_ARCH_REGISTRY.register()
class BicaptioningModel(CaptioningModel):
    """A CaptioningModel with a second decoder, trained to write captions backwards (VirTex, sec. 3).

    The decoders differ only in their transformer, of which the backward one starts as a copy: image projection,
    embedding and output are one and the same. The image is projected once for both.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.backward_textual = copy.deepcopy(self.textual)
        self.backward_textual.visual_projection = self.textual.visual_projection
        self.backward_textual.embedding = self.textual.embedding
        self.backward_textual.output = self.textual.output

    def caption_losses(self, captions: list[Tensor], memory: Tensor) -> dict[str, TargetLosses]:
        """Return the losses of captions (length,) in both directions."""
        reversed_captions = [caption.flip(0) for caption in captions]
        backward = _next_token_losses(self.backward_textual, reversed_captions, memory)
        return super().caption_losses(captions, memory) | {"loss_captioning_backward": backward}


def _next_token_losses(head: TransformerDecoderTextualHead, captions: list[Tensor], memory: Tensor) -> TargetLosses:
    tokens = pad_sequence(captions, batch_first=True, padding_value=head.padding_idx)
    targets = tokens[:, 1:]
    images, positions = (targets != head.padding_idx).nonzero(as_tuple=True)
    features = head(tokens[:, :-1], memory)[images, positions]  # shape: (targets, hidden)
    values = F.cross_entropy(head.output(features), targets[images, positions], reduction="none")
    return TargetLosses(values, images)
