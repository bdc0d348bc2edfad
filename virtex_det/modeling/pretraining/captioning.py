"""Captioning (VirTex, CapPa): predict a caption from the image, forwards or both ways."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from virtex_det.modeling.pretraining.image_model import (
    ImageModel,
    TargetLosses,
    draw_for_examples,
    feature_channels,
    per_caption,
)
from virtex_det.modeling.textual import TransformerDecoderTextualHead, build_textual_head
from virtex_det.modeling.textual.generation import END, Generated, build_caption_decoder

Decoder = Callable[[TransformerDecoderTextualHead, Tensor], Generated]


@META_ARCH_REGISTRY.register()
class CaptioningModel(ImageModel):
    """A ResNet and a transformer decoder that learns to caption (VirTex's "forward captioning").

    In evaluation the model captions its images: each image's dict has "caption_tokens", without
    boundaries and padding, and their "log_probability" under the model.

    With a `parallel_fraction` the model is CapPa (Tschannen et al. 2023): in training, that share
    of the captions is predicted in parallel, all words at once from the image alone. So the decoder
    cannot guess a word from those before it. In evaluation it predicts token by token.

    Args:
        backbone: has a feature "res5".
        textual: the forward decoder.
        pixel_mean: per channel, in the images' units (0..255).
        pixel_std: likewise.
        decoder: the search that writes captions with the forward decoder; None for losses alone.
        parallel_fraction: probability that a caption is predicted in parallel, per direction.

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
    other_mappers: tuple[str, ...] = ("NarrativeMapper",)

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        textual: TransformerDecoderTextualHead,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        decoder: Decoder | None = None,
        parallel_fraction: float = 0.0,
    ):
        super().__init__(backbone, pixel_mean, pixel_std)
        self.textual = textual
        self.decoder = decoder
        self.parallel_fraction = parallel_fraction

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        common = super().from_config(cfg)
        textual = build_textual_head(cfg, feature_channels(common["backbone"]))
        return common | {
            "textual": textual,
            "decoder": build_caption_decoder(cfg),
            "parallel_fraction": cfg.MODEL.TEXTUAL.PARALLEL_FRACTION,
        }

    def target_losses(self, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, TargetLosses]:
        """Return the cross-entropy of each next token.

        Args:
            batched_inputs: examples with "caption_tokens" (L,), from [SOS] to [EOS].
        """
        # shape: (images, cells, hidden)
        memory = self.textual.project(self.visual_grid(batched_inputs))
        return self.caption_losses(batched_inputs, memory)

    def inference(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return each image's generated caption, and its "losses" if it has a caption already."""
        if self.decoder is None:
            return super().inference(batched_inputs)
        # shape: (images, cells, hidden)
        memory = self.textual.project(self.visual_grid(batched_inputs))
        outputs: list[dict[str, Any]] = [{} for _ in batched_inputs]
        if any(self.target in example for example in batched_inputs):
            losses = self.caption_losses(batched_inputs, memory)
            outputs = self.by_image(losses, batched_inputs)
        # shape: (images, beams, steps), (images, beams)
        tokens, log_probabilities = self.decoder(self.textual, memory)
        captions, scores = tokens[:, 0].cpu(), log_probabilities[:, 0].tolist()
        for output, caption, log_probability in zip(outputs, captions, scores, strict=True):
            output["caption_tokens"] = caption[caption > END]
            output["log_probability"] = log_probability
        return outputs

    def caption_losses(
        self, batched_inputs: Sequence[dict[str, Any]], memory: Tensor
    ) -> dict[str, TargetLosses]:
        """Return the losses of captions.

        Args:
            batched_inputs: examples with "caption_tokens", and images without a caption.
            memory: (images, cells, hidden), `textual.project` of the image grid.
        """
        captioned, images = self.captions_of(batched_inputs)
        captions = self.on_device(captioned, self.target)
        losses = {}
        for name, head, is_backward in self.directions():
            tokens = [caption.flip(0) for caption in captions] if is_backward else captions
            in_parallel = self.draw_parallel(len(batched_inputs))
            found = token_losses(
                head, tokens, per_caption(memory, images), per_caption(in_parallel, images)
            )
            losses[name] = TargetLosses(found.values, images[found.images])
        return losses

    def directions(self) -> list[tuple[str, TransformerDecoderTextualHead, bool]]:
        """Return the name of each loss, its decoder, and whether it reads captions backwards."""
        return [("loss_captioning_forward", self.textual, False)]

    def draw_parallel(self, number: int) -> Tensor:
        """Draw bool (images,): whether captions are predicted in parallel; never in evaluation.

        Args:
            number: images; the captions of one go the same way.
        """
        if not self.training or not self.parallel_fraction:
            return torch.zeros(number, dtype=torch.bool, device=self.device)
        return draw_for_examples(number, self.device) < self.parallel_fraction


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

    def directions(self) -> list[tuple[str, TransformerDecoderTextualHead, bool]]:
        """Return both directions, as in `CaptioningModel`."""
        return [*super().directions(), ("loss_captioning_backward", self.backward_textual, True)]


def token_losses(
    head: TransformerDecoderTextualHead,
    captions: list[Tensor],
    memory: Tensor,
    in_parallel: Tensor,
    labels: list[Tensor] | None = None,
) -> TargetLosses:
    """Return the loss of each token that follows another, with the index of its caption.

    Args:
        head: the decoder.
        captions: n captions, each (length,).
        memory: (n, cells, hidden), `head.project` of the image grids.
        in_parallel: bool (n,), whether a caption is predicted in parallel.
        labels: as `captions`, with padding in the place of tokens that are not to be predicted; by
            default all are.
    """
    # shape: (captions, longest)
    tokens = pad_sequence(captions, batch_first=True, padding_value=head.padding_idx)
    wanted = tokens
    if labels is not None:
        wanted = pad_sequence(labels, batch_first=True, padding_value=head.padding_idx)
    targets = wanted[:, 1:]
    rows, positions = (targets != head.padding_idx).nonzero(as_tuple=True)
    # shape: (targets, hidden)
    features = _features(head, tokens[:, :-1], memory, in_parallel)[rows, positions]
    values = F.cross_entropy(head.output(features), targets[rows, positions], reduction="none")
    return TargetLosses(values, rows)


def _features(
    head: TransformerDecoderTextualHead, tokens: Tensor, memory: Tensor, in_parallel: Tensor
) -> Tensor:
    """Return the features (captions, length, hidden) of the tokens that follow."""
    parallel, one_by_one = in_parallel.nonzero().flatten(), (~in_parallel).nonzero().flatten()
    if not len(parallel):
        return head(tokens, memory)
    features = head.in_parallel(memory[parallel], tokens.shape[1])
    if not len(one_by_one):
        return features
    others = head(tokens[one_by_one], memory[one_by_one])
    return torch.cat([features, others])[torch.cat([parallel, one_by_one]).argsort()]
