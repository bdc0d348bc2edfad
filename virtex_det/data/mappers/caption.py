"""Dataset dicts with captions to pretraining examples: an augmented image and one tokenised caption."""

import re
from typing import Any

import torch
from detectron2.config import CfgNode, configurable

from virtex_det.data.build import MAPPER_REGISTRY
from virtex_det.data.mappers.pretraining import PretrainingMapper
from virtex_det.data.wordpiece import Tokenizer, read_tokenizer
from virtex_det.errors import UserError


@MAPPER_REGISTRY.register()
class CaptionMapper(PretrainingMapper):
    """An augmented image and one of its captions, whose words a flip of the image changes (VirTex, sec. 3.2)."""

    @configurable
    def __init__(self, is_train: bool, *, tokenizer: Tokenizer, max_length: int, **image_options: Any) -> None:
        """Make a mapper from a config, ``CaptionMapper(cfg, is_train)``, or from its parts.

        Args:
            is_train: draw caption and flip; else the first caption and no flip.
            tokenizer: encodes captions.
            max_length: tokens per caption, boundaries included.
            image_options: of ``PretrainingMapper``.
        """
        super().__init__(is_train, **image_options)
        self.tokenizer = tokenizer
        self.max_length = max_length

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Read INPUT.FORMAT and INPUT.CAPTION."""
        tokenizer = read_tokenizer(cfg.INPUT.CAPTION.TOKENIZER)
        if tokenizer.vocab_size != cfg.MODEL.TEXTUAL.VOCAB_SIZE:
            raise UserError(
                f"The tokenizer {cfg.INPUT.CAPTION.TOKENIZER} has {tokenizer.vocab_size} pieces, and the model "
                f"{cfg.MODEL.TEXTUAL.VOCAB_SIZE}.\nSet MODEL.TEXTUAL.VOCAB_SIZE {tokenizer.vocab_size}."
            )
        image_options = super().from_config(cfg, is_train)
        return {**image_options, "tokenizer": tokenizer, "max_length": cfg.INPUT.CAPTION.MAX_LENGTH}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Turn a dataset dict into a pretraining example.

        Returns:
            "image" (3, S, S) uint8, "caption_tokens" (L,) int64 from [SOS] to [EOS], "image_id", "height", "width".

        Raises:
            UserError: the image cannot be read or has no caption.
        """
        example, is_flipped = self.map_image(dataset_dict)
        caption = self._choose_caption(dataset_dict)
        if is_flipped:
            caption = exchange_left_and_right(caption)
        return {**example, "caption_tokens": torch.tensor(self._tokens(caption))}

    def _choose_caption(self, dataset_dict: dict[str, Any]) -> str:
        captions = dataset_dict.get("captions")
        if not captions:
            raise UserError(
                f"No caption for image {dataset_dict['file_name']}; pretraining needs at least one per image.\n"
                "Set DATASETS.TRAIN to a dataset with captions, such as coco_2017_train_captions."
            )
        return captions[int(torch.randint(len(captions), ()))] if self.is_train else captions[0]

    def _tokens(self, caption: str) -> list[int]:
        # Text is cut, never a boundary: VirTex's public code cuts [EOS] too, and then reads long captions backward
        # from the middle.
        pieces = self.tokenizer.encode(caption)[: self.max_length - 2]
        return [self.tokenizer.sos_id, *pieces, self.tokenizer.eos_id]


def exchange_left_and_right(caption: str) -> str:
    """Exchange the words "left" and "right", as a horizontal flip does to what they describe.

    Example:
        >>> exchange_left_and_right("Left of a bright light, right?")
        'Right of a bright light, left?'
    """
    return re.sub(r"\b(left|right)\b", _opposite, caption, flags=re.IGNORECASE)


def _opposite(word: re.Match) -> str:
    found = word[0]
    opposite = "right" if found.lower() == "left" else "left"
    if found.isupper():
        return opposite.upper()
    return opposite.capitalize() if found[0].isupper() else opposite
