"""The mapper of ICMLM: a caption with a masked concept word, and the caption's concepts."""

import logging
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor

from virtex_det.data.build import MAPPER_REGISTRY
from virtex_det.data.concept_words import ConceptWords
from virtex_det.data.concepts import ConceptSet
from virtex_det.data.mappers.caption import CaptionMapper
from virtex_det.data.seeding import seeded
from virtex_det.data.tokenizers import tokenizer_sha256
from virtex_det.errors import UserError

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
        self.words = ConceptWords(concepts, self.tokenizer)

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
        tags = self.words.index(tokens[positions]).unique()
        with nullcontext() if self.is_train else seeded(example["image_id"]):
            chosen = positions[torch.randperm(len(positions))[:1]]
        return {**example, **self._mask(tokens, chosen), "tags": tags}

    def log_coverage(self, dicts: Iterable[dict[str, Any]]) -> None:
        """Log the number of images without a concept word, which the masked-word loss skips.

        Raises:
            UserError: there are captions, and no concept word in any.
        """
        captions = [example.get("captions") or () for example in dicts]
        have = [any(map(self._has_concept, of_image)) for of_image in captions]
        if any(captions) and not any(have):
            words = ", ".join(concept.word for concept in self.words.concepts[:5])
            raise UserError(
                f"No caption of the {len(have)} images has a word of INPUT.CAPTION.CONCEPTS, such "
                f"as {words}: there is nothing to learn.\n"
                "Build the concept set from the captions of DATASETS.TRAIN."
            )
        logger.info(
            "%d of %d images have no concept word in their captions", have.count(False), len(have)
        )

    def concept_positions(self, tokens: Tensor) -> Tensor:
        """Return the positions (n,) of concepts in tokens (L,), as whole words."""
        return self.words.positions(tokens, self.max_length)

    def _with_concept(self, captions: Sequence[str]) -> list[str]:
        order = torch.randperm(len(captions)) if self.is_train else torch.arange(len(captions))
        ordered = [captions[index] for index in order]
        return [caption for caption in ordered if self._has_concept(caption)][:1] or ordered[:1]

    def _has_concept(self, caption: str) -> bool:
        return len(self.concept_positions(torch.tensor(self._tokens(caption)))) > 0

    def _mask(self, tokens: Tensor, positions: Tensor) -> dict[str, Tensor]:
        labels, masked = torch.zeros_like(tokens), tokens.clone()
        labels[positions] = tokens[positions]
        masked[positions] = self.tokenizer.mask_id
        return {"caption_tokens": masked, "masked_labels": labels}
