"""The mapper of ICMLM: a caption with a masked concept word, and the caption's concepts."""

import logging
import re
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor

from virtex_det.data.build import MAPPER_REGISTRY
from virtex_det.data.concepts import ConceptSet
from virtex_det.data.mappers.caption import CaptionMapper
from virtex_det.data.seeding import seeded
from virtex_det.data.tokenizers import tokenizer_sha256

logger = logging.getLogger(__name__)


@MAPPER_REGISTRY.register()
class ConceptMapper(CaptionMapper):
    """Makes a caption with one masked concept word, and its concepts as tags (ICMLM).

    Where we do not know the paper's choice, ours is: one word per caption is masked, always by
    [MASK], each concept word with the same probability. A caption without a concept word is
    replaced by another caption of its image; if no caption has one, nothing is masked, and the loss
    skips the image. In evaluation the image id determines the masked word, so that losses are
    comparable.
    """

    @configurable
    def __init__(self, is_train: bool, *, concepts: ConceptSet, **caption_options: Any) -> None:
        """Make a mapper from a config, ``ConceptMapper(cfg, is_train)``, or from its parts.

        Args:
            is_train: draw the caption, the flip and the word.
            concepts: concepts that were chosen with this tokenizer.
            caption_options: options of ``CaptionMapper``.
        """
        super().__init__(is_train, **caption_options)
        concepts.require_pieces(self.tokenizer)
        self.concepts = concepts.concepts
        self._whole_words: dict[tuple[int, ...], bool] = {}
        self._index = torch.full((self.tokenizer.vocab_size,), -1)
        self._index[[concept.token_id for concept in self.concepts]] = torch.arange(
            len(self.concepts)
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Read INPUT.CAPTION."""
        concepts = ConceptSet.read(cfg.INPUT.CAPTION.CONCEPTS)
        concepts.require_tokenizer(tokenizer_sha256(cfg.INPUT.CAPTION.TOKENIZER))
        return {**super().from_config(cfg, is_train), "concepts": concepts}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Turn a dataset dict into a pretraining example.

        Returns:
            As ``CaptionMapper``, with "masked_labels" (L,) int64, the true token at [MASK] and 0
            elsewhere; and "tags" (n,) int64, the sorted concepts of the caption.
        """
        captions = dataset_dict.get("captions") or []
        example = super().__call__({**dataset_dict, "captions": self._with_concept(captions)})
        tokens = example["caption_tokens"]
        positions = self.concept_positions(tokens)
        tags = self._index[tokens[positions]].unique()
        with nullcontext() if self.is_train else seeded(example["image_id"]):
            chosen = positions[torch.randperm(len(positions))[:1]]
        return {**example, **self._mask(tokens, chosen), "tags": tags}

    def log_coverage(self, dicts: Iterable[dict[str, Any]]) -> None:
        """Log the number of images without a concept word, which the masked-word loss skips."""
        have = [any(map(self._has_concept, example.get("captions") or ())) for example in dicts]
        logger.info(
            "%d of %d images have no concept word in their captions", have.count(False), len(have)
        )

    def concept_positions(self, tokens: Tensor) -> Tensor:
        """Return the positions (n,) of concepts in tokens (L,), as whole words.

        The token "cat" at the start of "catfish" is not one. Nor is the last token of a full-length
        caption: the rest of its word may have been cut.
        """
        candidates = (self._index[tokens[: self.max_length - 2]] >= 0).nonzero().flatten()
        listed = tokens.tolist()
        whole = [
            self._is_whole_word(listed[position : position + 2]) for position in candidates.tolist()
        ]
        return candidates[torch.tensor(whole, dtype=torch.bool)]

    def _with_concept(self, captions: Sequence[str]) -> list[str]:
        order = torch.randperm(len(captions)) if self.is_train else torch.arange(len(captions))
        ordered = [captions[index] for index in order]
        return [caption for caption in ordered if self._has_concept(caption)][:1] or ordered[:1]

    def _has_concept(self, caption: str) -> bool:
        return len(self.concept_positions(torch.tensor(self._tokens(caption)))) > 0

    def _is_whole_word(self, tokens: Sequence[int]) -> bool:
        """Return whether a concept's token is a whole word, given the token after it."""
        pair = tuple(tokens)
        if pair not in self._whole_words:  # few pairs occur, and decoding is the slowest step
            word = self.concepts[self._index[pair[0]]].word
            self._whole_words[pair] = re.findall(r"\w+", self.tokenizer.decode(pair))[:1] == [word]
        return self._whole_words[pair]

    def _mask(self, tokens: Tensor, positions: Tensor) -> dict[str, Tensor]:
        labels, masked = torch.zeros_like(tokens), tokens.clone()
        labels[positions] = tokens[positions]
        masked[positions] = self.tokenizer.mask_id
        return {"caption_tokens": masked, "masked_labels": labels}
