"""Contrastive learning of images and captions, with attention that follows a pointer (LocTex)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from virtex_det.data.traces import render_batch
from virtex_det.errors import UserError
from virtex_det.modeling.pretraining.contrastive import (
    CONTRASTIVE_LOSSES,
    SigmoidContrast,
    contrastive_losses,
)
from virtex_det.modeling.pretraining.image_model import ImageModel, TargetLosses, per_caption
from virtex_det.modeling.textual.padding import pad_captions
from virtex_det.modeling.textual.text_encoder import TextEncoder, build_text_encoder

# Maps scores of cells and masks, both (..., height, width), to losses (...).
LocalizationLoss = Callable[[Tensor, Tensor], Tensor]


class _Encoded(NamedTuple):
    """Images with a caption, and their captions."""

    images: Tensor  # (images,) int64, index in the batch
    captions: list[dict[str, Any]]  # what is to be learned of each caption
    owners: Tensor  # (captions,) int64, which of these images each caption has
    features: dict[str, Tensor]  # each (images, channels, height, width)
    text: Tensor  # (captions, length, text size)
    padding: Tensor  # (captions, length), True where there is no token


@META_ARCH_REGISTRY.register()
class LocTexModel(ImageModel):
    """A ResNet and a text encoder that learn one space for images and captions (LocTex, sec. 3).

    The localization loss trains each token's attention over the image cells to be where the
    narrator pointed while saying it. With INPUT.CAPTION.CONCEPTS only the words of that set are
    localized. Without the loss no trace is needed, and any captions will do.

    Where we do not know the paper's choice, we chose: a caption's feature is the mean over its
    tokens, boundaries included; negatives come from the batch of all processes, without a queue;
    the contrastive loss is the mean of both directions; all localization feature maps share one
    token embedding, and their losses are added. We also chose the words and the cross-entropy
    (MODEL.LOCTEX.LOCALIZATION_LOSS). The contrastive loss may be SigLIP's instead, which treats
    each pair alone.

    In evaluation the negatives come from the image's own batch, so the value of its contrastive
    loss depends on DATALOADER.TEST_BATCH_SIZE. Each image with a caption also has "attention",
    float (L, R, R): the attention of each token, with sum 1, over the cells of the last feature map
    in MODEL.LOCTEX.LOCALIZATION_FEATURES. A model without localization compares cells and tokens by
    the projections of images and captions.

    Args:
        backbone: has "res5" and the localization features.
        text_encoder: maps tokens to vectors.
        embed_size: width of both embedding spaces: images and captions, cells and tokens.
        temperature: divides similarities; with a sigmoid loss it is learned from there.
        localization_weight: factor of the localization loss; 0 for none.
        localization_features: names of feature maps.
        localization_loss: loss of the scores of cells and the cells that the trace touches.
        pixel_mean: per channel, in the images' units (0..255).
        pixel_std: likewise.
        contrastive_loss: one of CONTRASTIVE_LOSSES.
        sigmoid_bias: initial bias of the sigmoid loss.

    Example:
        >>> import virtex_det as vd
        >>> from virtex_det.modeling import build_model
        >>> keys = {"MODEL.DEVICE": "cpu", "MODEL.TEXTUAL.VOCAB_SIZE": 80}  # a tokenizer has it
        >>> cfg = vd.load_config("pretrain/scenes_loctex.yaml", keys)
        >>> model = build_model(cfg)
        >>> image, caption = torch.zeros(3, 64, 64), torch.tensor([1, 7, 8, 2])
        >>> points = torch.tensor([[1, 0.5, 0.5]])  # at token 1 the pointer was at the centre
        >>> losses = model([{"image": image, "caption_tokens": caption, "trace_points": points}])
        >>> [*losses]
        ['loss_contrastive', 'loss_localization']
    """

    target = "caption_tokens"
    mapper = "NarrativeMapper"
    may_hide_words = True

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
        localization_loss: LocalizationLoss,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        contrastive_loss: str = "infonce",
        sigmoid_bias: float = -10.0,
    ):
        super().__init__(backbone, pixel_mean, pixel_std)
        self.text_encoder = text_encoder
        self.temperature = temperature
        self.sigmoid = (
            SigmoidContrast(temperature, sigmoid_bias) if contrastive_loss == "sigmoid" else None
        )
        self.localization_weight = localization_weight
        self.localization_loss = localization_loss
        channels = {name: shape.channels for name, shape in backbone.output_shape().items()}
        self.image_projection = nn.Linear(channels["res5"], embed_size)
        self.caption_projection = nn.Linear(text_encoder.output_size, embed_size)
        if localization_weight:
            self.token_embedding = nn.Linear(text_encoder.output_size, embed_size)
            # No bias: it would add the same to all cells, which does not change a softmax.
            self.cell_embeddings = nn.ModuleDict(
                {
                    name: nn.Linear(channels[name], embed_size, bias=False)
                    for name in localization_features
                }
            )

    @classmethod
    def mappers(cls, cfg: CfgNode) -> tuple[str, ...]:
        """Return NarrativeMapper; without the localization loss, CaptionMapper will do."""
        if cfg.MODEL.LOCTEX.LOCALIZATION_WEIGHT:
            return ("NarrativeMapper",)
        return ("CaptionMapper", "NarrativeMapper")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor.

        Raises:
            UserError: the backbone lacks a feature map that the config names, or a number is
                invalid.
        """
        common, options = super().from_config(cfg), cfg.MODEL.LOCTEX
        _check(options, common["backbone"].output_shape())
        return common | {
            "text_encoder": build_text_encoder(cfg),
            "embed_size": options.EMBED_SIZE,
            "temperature": options.TEMPERATURE,
            "localization_weight": options.LOCALIZATION_WEIGHT,
            "localization_features": options.LOCALIZATION_FEATURES,
            "localization_loss": LOCALIZATION_LOSSES[options.LOCALIZATION_LOSS],
            "contrastive_loss": options.CONTRASTIVE_LOSS,
            "sigmoid_bias": options.SIGMOID_BIAS,
        }

    def target_losses(self, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, TargetLosses]:
        """Return the contrastive loss of each captioned image, and the localization loss of tokens.

        Args:
            batched_inputs: examples with "caption_tokens" (L,), and to localise with "trace_points"
                (points, 3): token, and x and y in shares of the image.
        """
        return self._losses(self._encode(batched_inputs))

    def inference(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the "losses" and "attention" of images with a caption; {} for other images."""
        if not any(self.target in example for example in batched_inputs):
            return [{} for _ in batched_inputs]
        encoded = self._encode(batched_inputs)
        outputs = self.by_image(self._losses(encoded), batched_inputs)
        *_, scores = self._scores(encoded).values()
        captioned = encoded.images.tolist()
        maps, paddings = attention(scores).float().cpu(), encoded.padding.cpu()
        for image, token_maps, padding in zip(captioned, maps, paddings, strict=True):
            outputs[image]["attention"] = token_maps[~padding]
        return outputs

    def _check_targets(self, batched_inputs: Sequence[dict[str, Any]]) -> None:
        super()._check_targets(batched_inputs)
        captions, _ = self.captions_of(batched_inputs)
        if self.localization_weight and not all("trace_points" in caption for caption in captions):
            raise UserError(
                "LocTexModel learns where the narrator pointed, but an example has no "
                "'trace_points'.\n"
                "Leave DATALOADER.MAPPER empty, which selects NarrativeMapper, and set "
                "DATASETS.TRAIN to narratives such as coco_2017_train_narratives; or set "
                "MODEL.LOCTEX.LOCALIZATION_WEIGHT 0 to learn from captions alone."
            )

    def _encode(self, batched_inputs: Sequence[dict[str, Any]]) -> _Encoded:
        images = [
            index
            for index, example in enumerate(batched_inputs)
            if "by_caption" in example or self.target in example
        ]
        examples = [batched_inputs[image] for image in images]
        captions, owners = self.captions_of(examples)
        tokens, padding = pad_captions(self.on_device(captions, self.target))
        return _Encoded(
            images=torch.tensor(images, device=self.device),
            captions=captions,
            owners=owners,
            features=self.visual_features(examples),
            text=self.text_encoder(tokens, padding),
            padding=padding,
        )

    def _losses(self, encoded: _Encoded) -> dict[str, TargetLosses]:
        losses = {"loss_contrastive": self._contrast(encoded)}
        has_trace = any("trace_points" in caption for caption in encoded.captions)
        if self.localization_weight and has_trace:
            losses["loss_localization"] = self._localize(encoded)
        return losses

    def _contrast(self, encoded: _Encoded) -> TargetLosses:
        images = self.image_projection(encoded.features["res5"].mean(dim=(2, 3)))
        captions = self.caption_projection(mean_over_tokens(encoded.text, encoded.padding))
        together, owners = self.training, encoded.owners
        if self.sigmoid is not None:
            values = self.sigmoid(images, captions, owners, all_processes=together)
            return TargetLosses(values, encoded.images)
        values = contrastive_losses(
            images, captions, self.temperature, owners, all_processes=together
        )
        return TargetLosses(values, encoded.images[owners])

    def _localize(self, encoded: _Encoded) -> TargetLosses:
        """Return the loss of each token that has points."""
        nowhere, length = torch.empty(0, 3), encoded.text.shape[1]
        points = [
            caption.get("trace_points", nowhere).to(self.device) for caption in encoded.captions
        ]
        losses = [
            self.localization_loss(scores, render_batch(points, length, scores.shape[-1]))
            for scores in self._scores(encoded).values()
        ]
        captions, tokens = render_batch(points, length, 1).flatten(1).nonzero(as_tuple=True)
        # shape: (captions, length)
        total = torch.stack(losses).sum(dim=0)
        values = self.localization_weight * total[captions, tokens]
        return TargetLosses(values, encoded.images[encoded.owners[captions]])

    def _scores(self, encoded: _Encoded) -> dict[str, Tensor]:
        """Return by feature map each token's scores of cells (captions, length, height, width)."""
        if not self.localization_weight:
            cells = self.image_projection(_channels_last(encoded.features["res5"]))
            cells = per_caption(cells, encoded.owners)
            return {"res5": cell_scores(self.caption_projection(encoded.text), cells)}
        tokens = self.token_embedding(encoded.text)
        scores = {}
        for name, embedding in self.cell_embeddings.items():
            # shape: (captions, height, width, embed size)
            cells = per_caption(embedding(_channels_last(encoded.features[name])), encoded.owners)
            scores[name] = cell_scores(tokens, cells)
        return scores


def _check(options: CfgNode, given: Mapping[str, ShapeSpec]) -> None:
    """Refuse features that the backbone lacks, and numbers with which training makes no sense."""
    if options.TEMPERATURE <= 0 or options.LOCALIZATION_WEIGHT < 0:
        raise UserError(
            f"MODEL.LOCTEX.TEMPERATURE is {options.TEMPERATURE}, LOCALIZATION_WEIGHT "
            f"{options.LOCALIZATION_WEIGHT}.\n"
            "The temperature must be positive; the weight must be positive, or 0 for no "
            "localization loss."
        )
    if options.LOCALIZATION_LOSS not in LOCALIZATION_LOSSES:
        raise UserError(
            f"MODEL.LOCTEX.LOCALIZATION_LOSS is {options.LOCALIZATION_LOSS!r}; expected one of "
            f"{', '.join(LOCALIZATION_LOSSES)}."
        )
    if options.CONTRASTIVE_LOSS not in CONTRASTIVE_LOSSES:
        raise UserError(
            f"MODEL.LOCTEX.CONTRASTIVE_LOSS is {options.CONTRASTIVE_LOSS!r}; expected one of "
            f"{', '.join(CONTRASTIVE_LOSSES)}."
        )
    localized = options.LOCALIZATION_FEATURES if options.LOCALIZATION_WEIGHT else ("res5",)
    if not localized:
        raise UserError(
            "MODEL.LOCTEX.LOCALIZATION_FEATURES is empty. Name a feature map such as res5, or set "
            "MODEL.LOCTEX.LOCALIZATION_WEIGHT 0 for no localization loss."
        )
    wanted = {"res5", *localized}
    if absent := sorted(wanted - {*given}):
        raise UserError(
            f"The backbone does not return {', '.join(absent)}: LocTex compares images by res5, "
            "and localizes in MODEL.LOCTEX.LOCALIZATION_FEATURES "
            f"{options.LOCALIZATION_FEATURES}.\n"
            "A ResNet without an FPN returns them with MODEL.RESNETS.OUT_FEATURES "
            f"{sorted(wanted)}."
        )


def cell_scores(tokens: Tensor, cells: Tensor) -> Tensor:
    """Return the scaled dot products of tokens and cells.

    Args:
        tokens: (captions, length, size).
        cells: (captions, height, width, size).

    Returns:
        (captions, length, height, width).
    """
    return torch.einsum("nls,nhws->nlhw", tokens, cells) / tokens.shape[-1] ** 0.5


def attention(scores: Tensor) -> Tensor:
    """Return the softmax (..., height, width) of scores over all cells.

    We do not know how the paper normalises the products. With a softmax, cells off the trace need
    only be smaller than cells on it, and attention sums to 1 as usual.
    """
    return scores.flatten(-2).softmax(dim=-1).view_as(scores)


def distance_losses(scores: Tensor, masks: Tensor) -> Tensor:
    """Return the squared distance (...) of attention and mask, both scaled to norm 1 (LocTex).

    Args:
        scores: (..., height, width).
        masks: bool (..., height, width), where the narrator pointed.

    Example:
        >>> masks = torch.tensor([[True, False]])
        >>> distance_losses(torch.tensor([[99.0, -99.0]]), masks)  # attention is on the mask
        tensor(0.)
    """
    attended = attention(scores).flatten(-2)
    target = F.normalize(masks.flatten(-2).to(attended.dtype), dim=-1)
    return (F.normalize(attended, dim=-1) - target).square().sum(dim=-1)


def cross_entropy_losses(scores: Tensor, masks: Tensor) -> Tensor:
    """Return the cross-entropy (...) of attention with equal shares of the mask's cells.

    The distance hardly changes while attention is far from the mask; the cross-entropy does. A
    token with an empty mask has loss 0. Arguments as for `distance_losses`.

    Example:
        >>> masks = torch.tensor([[True, False]])
        >>> cross_entropy_losses(torch.zeros(1, 2), masks)  # log(2): both cells alike
        tensor(0.6931)
    """
    # In half precision the shares of seven cells would sum to 0.998, not 1.
    precision = torch.promote_types(scores.dtype, torch.float32)
    log_attention = scores.flatten(-2).to(precision).log_softmax(dim=-1)
    shares = F.normalize(masks.flatten(-2).to(precision), p=1, dim=-1)
    return -(shares * log_attention).sum(dim=-1)


LOCALIZATION_LOSSES: dict[str, LocalizationLoss] = {
    "distance": distance_losses,
    "cross_entropy": cross_entropy_losses,
}


def mean_over_tokens(vectors: Tensor, padding: Tensor) -> Tensor:
    """Return the mean (captions, size) of each caption's token vectors, without its padding.

    Args:
        vectors: (captions, length, size).
        padding: (captions, length), True at padding.
    """
    has_token = ~padding.unsqueeze(2)
    return vectors.where(has_token, 0).sum(dim=1) / has_token.sum(dim=1)


def _channels_last(grid: Tensor) -> Tensor:
    return grid.permute(0, 2, 3, 1)
