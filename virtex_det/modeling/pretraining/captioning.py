"""Captioning (VirTex): predict a caption from the image, token by token, forwards or both ways."""

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
    """A ResNet and a transformer decoder that learns to caption (VirTex's "forward captioning").

    In evaluation the model captions its images: each image's dict has "caption_tokens", without
    boundaries and padding, and their "log_probability" under the model.

    Args:
        backbone: has a feature "res5".
        textual: the forward decoder.
        pixel_mean: per channel, in the images' units (0..255).
        pixel_std: likewise.
        decoder: the search that writes captions with the forward decoder; None for losses alone.

    Example:
        >>> import torch
        >>> import virtex_det as vd
        >>> from virtex_det.modeling import build_model
        >>> keys = {"MODEL.DEVICE": "cpu", "MODEL.TEXTUAL.VOCAB_SIZE": 80}  # a tokenizer has it
        >>> cfg = vd.load_config("pretrain/scenes_captioning.yaml", keys)
        >>> model = build_model(cfg)
        >>> image, caption = torch.zeros(3, 64, 64), torch.tensor([1, 7, 8, 2])
        >>> losses = model([{"image": image, "caption_tokens": caption}])
        >>> [*losses]
        ['loss_captioning_forward']
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
        """Return the cross-entropy of each next token.

        Args:
            batched_inputs: examples with "caption_tokens" (L,), from [SOS] to [EOS].
        """
        # shape: (images, cells, hidden)
        memory = self.textual.project(self.visual_grid(batched_inputs))
        return self.caption_losses(self.on_device(batched_inputs, self.target), memory)

    def inference(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return each image's generated caption, and its "losses" if it has a caption already."""
        if self.decoder is None:
            return super().inference(batched_inputs)
        # shape: (images, cells, hidden)
        memory = self.textual.project(self.visual_grid(batched_inputs))
        outputs: list[dict[str, Any]] = [{} for _ in batched_inputs]
        if any(self.target in example for example in batched_inputs):
            losses = self.caption_losses(self.on_device(batched_inputs, self.target), memory)
            outputs = self.by_image(losses, batched_inputs)
        # shape: (images, beams, steps), (images, beams)
        tokens, log_probabilities = self.decoder(self.textual, memory)
        captions, scores = tokens[:, 0].cpu(), log_probabilities[:, 0].tolist()
        for output, caption, log_probability in zip(outputs, captions, scores, strict=True):
            output["caption_tokens"] = caption[caption > END]
            output["log_probability"] = log_probability
        return outputs

    def caption_losses(self, captions: list[Tensor], memory: Tensor) -> dict[str, TargetLosses]:
        """Return the losses of captions.

        Args:
            captions: one of shape (length,) per image.
            memory: (images, cells, hidden), `textual.project` of the image grid.
        """
        return {"loss_captioning_forward": _next_token_losses(self.textual, captions, memory)}


@META_ARCH_REGISTRY.register()
class BicaptioningModel(CaptioningModel):
    """A CaptioningModel with a second decoder, for captions read backwards (VirTex, sec. 3).

    Both decoders share image projection, embedding and output layer; only their transformers
    differ, and the backward one starts as a copy. The image is projected once for both.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.backward_textual = copy.deepcopy(self.textual)
        self.backward_textual.visual_projection = self.textual.visual_projection
        self.backward_textual.embedding = self.textual.embedding
        self.backward_textual.output = self.textual.output

    def caption_losses(self, captions: list[Tensor], memory: Tensor) -> dict[str, TargetLosses]:
        """Return the losses of captions in both directions; arguments as in `CaptioningModel`."""
        reversed_captions = [caption.flip(0) for caption in captions]
        backward = _next_token_losses(self.backward_textual, reversed_captions, memory)
        return super().caption_losses(captions, memory) | {"loss_captioning_backward": backward}


def _next_token_losses(
    head: TransformerDecoderTextualHead, captions: list[Tensor], memory: Tensor
) -> TargetLosses:
    # shape: (images, longest)
    tokens = pad_sequence(captions, batch_first=True, padding_value=head.padding_idx)
    targets = tokens[:, 1:]
    images, positions = (targets != head.padding_idx).nonzero(as_tuple=True)
    # shape: (targets, hidden)
    features = head(tokens[:, :-1], memory)[images, positions]
    values = F.cross_entropy(head.output(features), targets[images, positions], reduction="none")
    return TargetLosses(values, images)
