"""Image-conditioned masked language modelling (ICMLM): predict masked concept words of captions."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from torch import Tensor
from torch.nn import functional as F

from virtex_det.data.vocabulary import vocabulary_size
from virtex_det.errors import UserError
from virtex_det.modeling.pretraining.image_model import ImageModel, TargetLosses, feature_channels
from virtex_det.modeling.pretraining.label_sets import (
    LabelSetLoss,
    equal_share_losses,
    label_presence,
)
from virtex_det.modeling.pretraining.tag_prediction import build_tag_loss, num_tags
from virtex_det.modeling.textual import LinearTextualHead
from virtex_det.modeling.textual.fusion import FusionHead, Masked, build_fusion_head
from virtex_det.modeling.textual.padding import pad_captions
from virtex_det.modeling.textual.text_encoder import TextEncoder, build_text_encoder


class _Encoded(NamedTuple):
    grid: Tensor  # (images, channels, height, width)
    masked: Masked
    labels: Tensor  # (targets,) int64, the true tokens


@META_ARCH_REGISTRY.register()
class ICMLMModel(ImageModel):
    """A ResNet, a text encoder and a head that fuses both to predict masked words (ICMLM, sec. 3).

    The text encoder is a pretrained BERT, frozen by default, or a small transformer that trains
    with the rest. The tag loss predicts the concepts of an image's captions from the image alone,
    as TP_Postag does. Its weight and form (MODEL.TAG_PREDICTION.LOSS) are our choice: we do not
    know the paper's. So is learning from several captions of an image at once, whose masked words
    are all predicted from one pass of the image through the backbone.

    In evaluation each image's dict has "attention", float (L, height, width): for each masked token
    of the caption its attention over the image cells, with sum 1; for other tokens zeros.

    Args:
        backbone: has a feature "res5".
        text_encoder: maps tokens to vectors.
        fusion: maps image grid and token vectors to logits of the masked tokens.
        pixel_mean: per channel, in the images' units (0..255).
        pixel_std: likewise.
        tag_head: predicts the concepts from the image alone; None for no tag loss.
        tag_loss: loss of each image's tags.
        tag_weight: factor of the tag loss.

    Example:
        >>> import torch
        >>> import virtex_det as vd
        >>> from virtex_det.modeling import build_model
        >>> keys = {"MODEL.DEVICE": "cpu", "MODEL.TEXTUAL.VOCAB_SIZE": 80}  # a tokenizer has it
        >>> keys |= {"MODEL.TAG_PREDICTION.NUM_TAGS": 25}  # a concept set has it
        >>> cfg = vd.load_config("pretrain/scenes_icmlm_tfm.yaml", keys)
        >>> model = build_model(cfg)
        >>> caption, labels = torch.tensor([1, 3, 8, 2]), torch.tensor([0, 7, 0, 0])  # 7 is masked
        >>> example = {"image": torch.zeros(3, 64, 64), "caption_tokens": caption}
        >>> [*model([example | {"masked_labels": labels, "tags": torch.tensor([3])}])]
        ['loss_masked_concept', 'loss_tag_prediction']
    """

    target = "masked_labels"
    mapper = "ConceptMapper"

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        text_encoder: TextEncoder,
        fusion: FusionHead,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        tag_head: LinearTextualHead | None = None,
        tag_loss: LabelSetLoss = equal_share_losses,
        tag_weight: float = 1.0,
    ):
        super().__init__(backbone, pixel_mean, pixel_std)
        self.text_encoder = text_encoder
        self.fusion = fusion
        self.tag_head = tag_head
        self.tag_loss = tag_loss
        self.tag_weight = tag_weight

    @classmethod
    def mappers(cls, cfg: CfgNode) -> tuple[str, ...]:
        """Return ConceptMapper; without a tag loss MaskedCaptionMapper, too."""
        return (
            ("ConceptMapper",)
            if cfg.MODEL.ICMLM.TAG_WEIGHT
            else ("ConceptMapper", "MaskedCaptionMapper")
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor.

        Raises:
            UserError: a value in MODEL.ICMLM or MODEL.TEXT_ENCODER is invalid, or the tokenizer
                cannot be read.
        """
        common = super().from_config(cfg)
        channels = feature_channels(common["backbone"])
        options, text_encoder = cfg.MODEL.ICMLM, build_text_encoder(cfg)
        if options.TAG_WEIGHT < 0:
            raise UserError(
                f"MODEL.ICMLM.TAG_WEIGHT is {options.TAG_WEIGHT}; expected a positive number, or "
                "0 for no tag loss."
            )
        fusion = build_fusion_head(
            options.HEAD,
            visual_feature_size=channels,
            text_size=text_encoder.output_size,
            vocab_size=vocabulary_size(cfg),
            num_layers=options.NUM_LAYERS,
            attention_heads=options.ATTENTION_HEADS,
            feedforward_size=options.FEEDFORWARD_SIZE,
            dropout=options.DROPOUT,
        )
        common |= {"text_encoder": text_encoder, "fusion": fusion}
        if not options.TAG_WEIGHT:
            return common
        tag_head = LinearTextualHead(channels, num_tags(cfg))
        tag_loss = build_tag_loss(cfg, tag_head)
        return common | {
            "tag_head": tag_head,
            "tag_loss": tag_loss,
            "tag_weight": options.TAG_WEIGHT,
        }

    def target_losses(self, batched_inputs: Sequence[dict[str, Any]]) -> dict[str, TargetLosses]:
        """Return the cross-entropy of each masked token, and the tag loss if there is a tag head.

        Args:
            batched_inputs: examples with "caption_tokens" (L,), one or more of them masked;
                "masked_labels" (L,), the true token at masked positions and 0 elsewhere; and "tags"
                (n,), indices of concepts.
        """
        return self._losses(self._encode(batched_inputs), batched_inputs)

    def inference(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the "losses" and "attention" of images with a caption; {} for other images."""
        if not any(self.target in example for example in batched_inputs):
            return [{} for _ in batched_inputs]
        encoded = self._encode(batched_inputs)
        outputs = self.by_image(self._losses(encoded, batched_inputs), batched_inputs)
        maps = self._attention(encoded)
        for example, output, token_maps in zip(batched_inputs, outputs, maps, strict=True):
            if self.target in example:
                output["attention"] = token_maps[: len(example["caption_tokens"])]
        return outputs

    def _encode(self, batched_inputs: Sequence[dict[str, Any]]) -> _Encoded:
        captioned, images = self.captions_of(batched_inputs)
        # shape: (captions, longest)
        tokens, padding = pad_captions(self.on_device(captioned, "caption_tokens"))
        labels, _ = pad_captions(self.on_device(captioned, self.target))
        captions, positions = labels.nonzero(as_tuple=True)
        masked = Masked(self.text_encoder(tokens, padding), padding, images, captions, positions)
        return _Encoded(self.visual_grid(batched_inputs), masked, labels[captions, positions])

    def _losses(
        self, encoded: _Encoded, batched_inputs: Sequence[dict[str, Any]]
    ) -> dict[str, TargetLosses]:
        grid, masked, labels = encoded
        # shape: (targets,)
        values = F.cross_entropy(self.fusion(grid, masked), labels, reduction="none")
        losses = {"loss_masked_concept": TargetLosses(values, masked.images[masked.captions])}
        if self.tag_head is None:
            return losses
        # shape: (images, tags)
        logits = self.tag_head(grid)
        tags = label_presence(self.joined(batched_inputs, "tags"), logits.shape[1])
        values, images = self.tag_loss(logits, tags)
        return losses | {"loss_tag_prediction": TargetLosses(self.tag_weight * values, images)}

    def _attention(self, encoded: _Encoded) -> Tensor:
        """Return (images, length, height, width) on the CPU."""
        grid, masked, _ = encoded
        maps = grid.new_zeros(*masked.text.shape[:2], *grid.shape[2:])
        maps[masked.captions, masked.positions] = self.fusion.attention(grid, masked).to(maps.dtype)
        return maps.float().cpu()
