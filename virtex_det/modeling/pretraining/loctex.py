"""Contrastive learning of images and captions, with attention that follows the narrator's pointer (LocTex)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F

from virtex_det.data.traces import render_batch
from virtex_det.errors import UserError
from virtex_det.modeling.pretraining.image_model import ImageModel, TargetLosses
from virtex_det.modeling.textual.padding import pad_captions
from virtex_det.modeling.textual.text_encoder import TextEncoder, build_text_encoder


class _Encoded(NamedTuple):
    """Images with a caption, and their captions."""

    features: dict[str, Tensor]  # each (captions, channels, height, width)
    text: Tensor  # (captions, length, text size)
    padding: Tensor  # (captions, length), True where there is no token


@META_ARCH_REGISTRY.register()
class LocTexModel(ImageModel):
    """A ResNet and a text encoder whose features of an image and of its caption are near each other (LocTex, sec. 3).

    Besides, the attention of each token over the image's cells learns to be where the narrator pointed while saying
    it. Without that loss no trace is needed, and any captions serve.

    Our choice, where we do not know the paper's: a caption's feature is the mean over its tokens, boundaries
    included; negatives come from the batch of all processes, from no queue; the contrastive loss is the mean of its two
    directions; all localised feature maps share one embedding of tokens.

    In evaluation an image's contrastive loss is that within its batch, so DATALOADER.TEST_BATCH_SIZE decides its value;
    and each image with a caption has "attention": float (L, R, R) of each token over the cells of the last of
    MODEL.LOCTEX.LOCALIZATION_FEATURES, of sum 1. A model without localisation compares cells and tokens as it does
    images and captions.

    Args:
        backbone: has "res5" and the features to localise in.
        text_encoder: from tokens to vectors.
        embed_size: of the common space of images and captions, and of that of cells and tokens.
        temperature: divides similarities.
        localization_weight: factor of the loss on attention; 0 leaves it out.
        localization_features: names of feature maps.
        pixel_mean: per channel, in the images' units (0..255).
        pixel_std: likewise.
    """

    target = "caption_tokens"
    mapper = "NarrativeMapper"

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        text_encoder: TextEncoder,
        embed_size: int,
        temperature: float,
        localization_weight: float,
        localization_features: Sequence[str],
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        super().__init__(backbone, pixel_mean, pixel_std)
        self.text_encoder = text_encoder
        self.temperature = temperature
        self.localization_weight = localization_weight
        channels = {name: shape.channels for name, shape in backbone.output_shape().items()}
        self.image_projection = nn.Linear(channels["res5"], embed_size)
        self.caption_projection = nn.Linear(text_encoder.output_size, embed_size)
        if localization_weight:
            self.token_embedding = nn.Linear(text_encoder.output_size, embed_size)
            # No bias: it would add the same to all cells, which a softmax does not see.
            self.cell_embeddings = nn.ModuleDict(
                {name: nn.Linear(channels[name], embed_size, bias=False) for name in localization_features}
            )

    @classmethod
    def mappers(cls, cfg: CfgNode) -> tuple[str, ...]:
        """Return NarrativeMapper; without the loss on attention, captions alone serve."""
        if cfg.MODEL.LOCTEX.LOCALIZATION_WEIGHT:
            return ("NarrativeMapper",)
        return ("CaptionMapper", "NarrativeMapper")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor.

        Raises:
            UserError: the backbone does not give a feature map that is asked for, or a number makes no sense.
        """
        common, options = super().from_config(cfg), cfg.MODEL.LOCTEX
        _check(options, common["backbone"].output_shape())
        return common | {
            "text_encoder": build_text_encoder(cfg),
            "embed_size": options.EMBED_SIZE,
            "temperature": options.TEMPERATURE,
            "localization_weight": options.LOCALIZATION_WEIGHT,
            "localization_features": options.LOCALIZATION_FEATURES,
        }

    def target_losses(self, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, TargetLosses]:
        """Return the contrastive loss of each image that has a caption, and that on attention of tokens with points.

        Args:
            batched_inputs: examples with "caption_tokens" (L,), and to localise with "trace_points" (points, 3):
                token, and x and y in shares of the image.
        """
        return self._losses(self._encode(batched_inputs), batched_inputs)

    def inference(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return for each image with a caption its "losses" and "attention"; nothing for others."""
        if not any(self.target in example for example in batched_inputs):
            return [{} for _ in batched_inputs]
        encoded = self._encode(batched_inputs)
        outputs = self.by_image(self._losses(encoded, batched_inputs), batched_inputs)
        *_, maps = self._attention(encoded).values()
        captioned = self._captioned(batched_inputs)
        for image, of_tokens, padding in zip(captioned, maps.float().cpu(), encoded.padding.cpu(), strict=True):
            outputs[image]["attention"] = of_tokens[~padding]
        return outputs

    def _check_targets(self, batched_inputs: Sequence[dict[str, Any]]) -> None:
        super()._check_targets(batched_inputs)
        if self.localization_weight and not all("trace_points" in example for example in batched_inputs):
            raise UserError(
                "LocTexModel learns where the narrator pointed, and an example has no 'trace_points'.\n"
                "Leave DATALOADER.MAPPER empty, which takes NarrativeMapper, and set DATASETS.TRAIN to narratives such "
                "as coco_2017_train_narratives; or set MODEL.LOCTEX.LOCALIZATION_WEIGHT 0 to learn from captions alone."
            )

    def _captioned(self, batched_inputs: Sequence[dict[str, Any]]) -> list[int]:
        return [image for image, example in enumerate(batched_inputs) if self.target in example]

    def _encode(self, batched_inputs: Sequence[dict[str, Any]]) -> _Encoded:
        captioned = [batched_inputs[image] for image in self._captioned(batched_inputs)]
        tokens, padding = pad_captions(self.on_device(captioned, self.target))
        return _Encoded(self.visual_features(captioned), self.text_encoder(tokens, padding), padding)

    def _losses(self, encoded: _Encoded, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, TargetLosses]:
        captioned = self._captioned(batched_inputs)
        images = torch.tensor(captioned, device=self.device)
        losses = {"loss_contrastive": TargetLosses(self._contrast(encoded), images)}
        if self.localization_weight and any("trace_points" in example for example in batched_inputs):
            values, captions = self._localize(encoded, [batched_inputs[image] for image in captioned])
            losses["loss_localization"] = TargetLosses(self.localization_weight * values, images[captions])
        return losses

    def _contrast(self, encoded: _Encoded) -> Tensor:
        images = self.image_projection(encoded.features["res5"].mean(dim=(2, 3)))
        captions = self.caption_projection(mean_over_tokens(encoded.text, encoded.padding))
        return contrastive_losses(images, captions, self.temperature, all_processes=self.training)

    def _localize(self, encoded: _Encoded, captioned: Sequence[dict[str, Any]]) -> tuple[Tensor, Tensor]:
        """Return the loss of each token with points, and the caption that it belongs to."""
        nowhere, length = torch.empty(0, 3), encoded.text.shape[1]
        points = [example.get("trace_points", nowhere).to(self.device) for example in captioned]
        losses = [
            localization_losses(attention, render_batch(points, length, attention.shape[-1]))
            for attention in self._attention(encoded).values()
        ]
        captions, tokens = render_batch(points, length, 1).flatten(1).nonzero(as_tuple=True)
        return torch.stack(losses).sum(dim=0)[captions, tokens], captions

    def _attention(self, encoded: _Encoded) -> dict[str, Tensor]:
        """Return by feature map how each token attends to its cells: (captions, length, height, width)."""
        if not self.localization_weight:
            cells = self.image_projection(_channels_last(encoded.features["res5"]))
            return {"res5": attend(self.caption_projection(encoded.text), cells)}
        tokens = self.token_embedding(encoded.text)
        return {
            name: attend(tokens, embedding(_channels_last(encoded.features[name])))
            for name, embedding in self.cell_embeddings.items()
        }


def _check(options: CfgNode, given: Mapping[str, ShapeSpec]) -> None:
    """Refuse features that the backbone does not give, and numbers that would train towards nothing or backwards."""
    if options.TEMPERATURE <= 0 or options.LOCALIZATION_WEIGHT < 0:
        raise UserError(
            f"MODEL.LOCTEX.TEMPERATURE is {options.TEMPERATURE}, LOCALIZATION_WEIGHT {options.LOCALIZATION_WEIGHT}.\n"
            "The temperature must be above 0; the weight 0, which leaves the loss on attention out, or above."
        )
    localized = options.LOCALIZATION_FEATURES if options.LOCALIZATION_WEIGHT else ("res5",)
    if not localized:
        raise UserError(
            "MODEL.LOCTEX.LOCALIZATION_FEATURES is empty. Name a feature map such as res5; to leave the loss on "
            "attention out, set MODEL.LOCTEX.LOCALIZATION_WEIGHT 0."
        )
    wanted = {"res5", *localized}
    if absent := sorted(wanted - {*given}):
        raise UserError(
            f"The backbone does not give {', '.join(absent)}: LocTex compares images by res5, and localises in "
            f"MODEL.LOCTEX.LOCALIZATION_FEATURES {options.LOCALIZATION_FEATURES}.\n"
            f"Set MODEL.RESNETS.OUT_FEATURES to {sorted({*given, *wanted})}."
        )


def contrastive_losses(images: Tensor, captions: Tensor, temperature: float, *, all_processes: bool = False) -> Tensor:
    """Return how badly each image finds its caption among all captions, and it the image: InfoNCE, mean of the two.

    Args:
        images: (n, size), of any length.
        captions: likewise, of these images.
        temperature: divides the cosine similarities.
        all_processes: compare with the images and captions of all processes, each of which has n.

    Returns:
        (n,).
    """
    own = F.normalize(torch.stack([images, captions]), dim=2)
    every, first = own, 0
    if all_processes and comm.get_world_size() > 1:
        every, first = _Gather.apply(own), len(images) * comm.get_rank()
    pairs = torch.arange(first, first + len(images), device=images.device)
    logits = own @ every.flip(0).transpose(1, 2) / temperature  # shape: (2, n, all)
    return torch.stack([F.cross_entropy(each, pairs, reduction="none") for each in logits]).mean(dim=0)


def attend(tokens: Tensor, cells: Tensor) -> Tensor:
    """Return the attention of tokens over cells: the softmax of scaled dot products.

    How the paper normalises the products is not known to us. A softmax leaves a cell off the trace nothing to fit but
    to be smaller than those on it, and makes of attention what shares sum to 1, as elsewhere.

    Args:
        tokens: (captions, length, size).
        cells: (captions, height, width, size).

    Returns:
        (captions, length, height, width).
    """
    scores = torch.einsum("nls,nhws->nlhw", tokens, cells) / tokens.shape[-1] ** 0.5
    return scores.flatten(2).softmax(dim=2).view_as(scores)


def localization_losses(attention: Tensor, masks: Tensor) -> Tensor:
    """Return the squared distance of attention and mask, both (..., height, width) and brought to length 1."""
    target = F.normalize(masks.flatten(-2).to(attention.dtype), dim=-1)
    return (F.normalize(attention.flatten(-2), dim=-1) - target).square().sum(dim=-1)


def mean_over_tokens(vectors: Tensor, padding: Tensor) -> Tensor:
    """Return the mean (captions, size) of those vectors (captions, length, size) that are not at padding."""
    has_token = ~padding.unsqueeze(2)
    return vectors.where(has_token, 0).sum(dim=1) / has_token.sum(dim=1)


class _Gather(torch.autograd.Function):
    """Features of all processes, (2, n, size) of each, one after the other along n.

    The gradient of a process's features is the sum of what the losses of all processes say of them: so the average
    that DDP takes of parameters' gradients is that of one process with the whole batch.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        own = own.contiguous()
        parts = [torch.empty_like(own) for _ in range(comm.get_world_size())]
        torch.distributed.all_gather(parts, own)
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        torch.distributed.all_reduce(total)
        return total.chunk(comm.get_world_size(), dim=1)[comm.get_rank()]


def _channels_last(grid: Tensor) -> Tensor:
    return grid.permute(0, 2, 3, 1)
