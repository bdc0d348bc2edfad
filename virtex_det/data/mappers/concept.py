"""The mapper of ICMLM: a caption with a masked concept word, and the caption's concepts."""

import logging
from collections.abc import Iterable
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor

from virtex_det.data.build import MAPPER_REGISTRY
from virtex_det.data.concept_words import ConceptWords, read_concept_words
from virtex_det.data.mappers.caption import CaptionMapper
from virtex_det.data.seeding import seeded
from virtex_det.errors import UserError
from virtex_det_commands import as_called

logger = logging.getLogger(__name__)


@MAPPER_REGISTRY.register()
class ConceptMapper(CaptionMapper):
    """Makes captions with masked concept words, and their concepts as tags (ICMLM).

    Where we do not know the paper's choice, we chose: INPUT.CAPTION.CONCEPT_MASKS words of a
    caption are masked together, always by [MASK], each concept word with the same probability. A
    caption without a concept word is replaced by another caption of its image; if no caption has
    one, nothing is masked, and the loss skips the image. In evaluation the image id determines the
    masked words, so that losses are comparable.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        concept_words: ConceptWords,
        concept_masks: int = 1,
        **caption_options: Any,
    ) -> None:
        """Make a mapper from a config, ``ConceptMapper(cfg, is_train)``, or from its parts.

        Args:
            is_train: draw captions, the flip and the words.
            concept_words: the words to mask and to predict.
            concept_masks: concept words of a caption to mask; 0 for all.
            caption_options: options of ``CaptionMapper``.
        """
        super().__init__(is_train, **caption_options)
        self.concept_words = concept_words
        self.concept_masks = concept_masks

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Read INPUT.CAPTION."""
        options, caption = super().from_config(cfg, is_train), cfg.INPUT.CAPTION
        own_options = {
            "concept_words": read_concept_words(cfg, options["tokenizer"]),
            "concept_masks": caption.CONCEPT_MASKS,
        }
        return {**options, **own_options}

    def map_caption(self, caption: str, image_id: int | str) -> dict[str, Tensor]:
        """Return what is to be learned of a caption.

        Returns:
            As ``CaptionMapper``, with "masked_labels" (L,) int64, the true token at [MASK] and 0
            elsewhere; and "tags" (n,) int64, the sorted concepts of the caption.
        """
        tokens = super().map_caption(caption, image_id)["caption_tokens"]
        positions = self.concept_positions(tokens)
        tags = self.concept_words.index(tokens[positions]).unique()
        with nullcontext() if self.is_train else seeded(image_id):
            order = torch.randperm(len(positions))
        chosen = positions[order[: self.concept_masks or None]]
        return {**self._mask(tokens, chosen), "tags": tags}

    def choose_captions(self, dataset_dict: dict[str, Any]) -> list[str]:
        """Return captions as ``CaptionMapper``, those with a concept word before the others."""
        captions = dataset_dict.get("captions") or []
        order = torch.randperm(len(captions)) if self.is_train else torch.arange(len(captions))
        ordered = [captions[index] for index in order]
        with_concept = (caption for caption in ordered if self._has_concept(caption))
        chosen = [*islice(with_concept, self.captions_per_image)]
        return chosen or super().choose_captions(dataset_dict)

    def log_coverage(self, dicts: Iterable[dict[str, Any]]) -> None:
        """Log the number of images without a concept word, which the masked-word loss skips.

        Warn of concepts without a noun.

        Raises:
            UserError: there are captions, and no concept word in any.
        """
        captions = [example.get("captions") or () for example in dicts]
        have = [any(map(self._has_concept, of_image)) for of_image in captions]
        if any(captions) and not any(have):
            words = ", ".join(concept.word for concept in self.concept_words.concepts[:5])
            raise UserError(
                f"No caption of the {len(have)} images has a word of INPUT.CAPTION.CONCEPTS, such "
                f"as {words}: there is nothing to learn.\n"
                "Build the concept set from the captions of DATASETS.TRAIN."
            )
        parts = {concept.part_of_speech for concept in self.concept_words.concepts}
        if "noun" not in parts:
            logger.warning(
                "INPUT.CAPTION.CONCEPTS has no noun, only %ss: the model learns to see properties "
                "instead of things, which hardly helps a detector. %s chooses nouns by default",
                "s and ".join(sorted(parts)),
                as_called("tools/build_concepts.py"),
            )
        logger.info(
            "%d of %d images have no concept word in their captions", have.count(False), len(have)
        )

    def concept_positions(self, tokens: Tensor) -> Tensor:
        """Return the positions (n,) of concepts in tokens (L,), as whole words."""
        return self.concept_words.positions(tokens, self.max_length)

    def _has_concept(self, caption: str) -> bool:
        return len(self.concept_positions(torch.tensor(self._tokens(caption)))) > 0

    def _mask(self, tokens: Tensor, positions: Tensor) -> dict[str, Tensor]:
        labels, masked = torch.zeros_like(tokens), tokens.clone()
        labels[positions] = tokens[positions]
        masked[positions] = self.tokenizer.mask_id
        return {"caption_tokens": masked, "masked_labels": labels}
