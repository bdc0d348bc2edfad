"""The mapper of masked language modelling."""

import math
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor

from virtex_det.data.build import MAPPER_REGISTRY
from virtex_det.data.mappers.caption import CaptionMapper
from virtex_det.data.seeding import seeded


@MAPPER_REGISTRY.register()
class MaskedCaptionMapper(CaptionMapper):
    """A CaptionMapper that masks tokens (VirTex's masked language modelling, after BERT).

    Unlike in BERT, only tokens behind [MASK] are predicted, not replaced or kept tokens.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        mask_proportion: float,
        mask_prob: float,
        replace_prob: float,
        **caption_options: Any,
    ) -> None:
        """Make a mapper from a config, ``MaskedCaptionMapper(cfg, is_train)``, or from its parts.

        Args:
            is_train: as in ``CaptionMapper``; otherwise the image id determines the masked tokens,
                so that losses are comparable.
            mask_proportion: fraction of a caption's tokens to choose, rounded up, at least one.
            mask_prob: fraction of the chosen tokens that becomes [MASK] and is predicted.
            replace_prob: fraction of the chosen tokens that becomes another token.
            caption_options: options of ``CaptionMapper``.
        """
        super().__init__(is_train, **caption_options)
        self.mask_proportion = mask_proportion
        self.mask_prob = mask_prob
        self.replace_prob = replace_prob

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Read the keys of ``CaptionMapper``, and those of the masking."""
        caption = cfg.INPUT.CAPTION
        return {
            **super().from_config(cfg, is_train),
            "mask_proportion": caption.MASK_PROPORTION,
            "mask_prob": caption.MASK_PROB,
            "replace_prob": caption.REPLACE_PROB,
        }

    def map_caption(self, caption: str, image_id: int | str) -> dict[str, Tensor]:
        """Return what is to be learned of a caption.

        Returns:
            As ``CaptionMapper``, with some "caption_tokens" masked, and "masked_labels" (L,) int64:
            the true token at [MASK], padding elsewhere.
        """
        mapped = super().map_caption(caption, image_id)
        with nullcontext() if self.is_train else seeded(image_id):
            tokens, labels = self._mask(mapped["caption_tokens"])
        return {"caption_tokens": tokens, "masked_labels": labels}

    def _mask(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        words = len(tokens) - 2
        chosen = 1 + torch.randperm(words)[: max(1, math.ceil(self.mask_proportion * words))]
        draws = torch.rand(len(chosen))
        is_masked = draws < self.mask_prob
        if len(chosen) == 1:
            is_masked[:] = True  # otherwise nothing would be predicted in this caption
        is_replaced = ~is_masked & (draws < self.mask_prob + self.replace_prob)

        masked, labels = tokens.clone(), torch.full_like(tokens, self.tokenizer.pad_id)
        labels[chosen[is_masked]] = tokens[chosen[is_masked]]
        masked[chosen[is_masked]] = self.tokenizer.mask_id
        first_word = self.tokenizer.mask_id + 1  # the special tokens come before
        others = torch.randint(first_word, self.tokenizer.vocab_size, (int(is_replaced.sum()),))
        masked[chosen[is_replaced]] = others
        return masked, labels
