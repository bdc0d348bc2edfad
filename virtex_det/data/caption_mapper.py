"""Dataset dicts with captions to pretraining examples: an augmented image and one tokenised caption."""

import re
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from torchvision.transforms import v2

from virtex_det.data.build import MAPPER_REGISTRY
from virtex_det.data.images import read_image
from virtex_det.data.tokenizer import SentencePieceTokenizer
from virtex_det.errors import UserError


@MAPPER_REGISTRY.register()
class CaptionMapper:
    """Image and caption augmentation of VirTex (sec. 3.2): crop, flip with its words, colour jitter, one caption.

    All randomness is torch's, which Detectron2 seeds in each worker.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        tokenizer: SentencePieceTokenizer,
        image_transform: v2.Transform,
        image_format: str,
        flip_prob: float,
        max_length: int,
    ) -> None:
        """Make a mapper from a config, ``CaptionMapper(cfg, is_train)``, or from its parts.

        Args:
            is_train: draw caption and flip; else the first caption and no flip.
            tokenizer: encodes captions.
            image_transform: from an RGB uint8 tensor (3, H, W) to (3, S, S).
            image_format: channel order to return, "RGB" or "BGR".
            flip_prob: how often to flip.
            max_length: tokens per caption, boundaries included.
        """
        self.is_train = is_train
        self.tokenizer = tokenizer
        self.image_transform = image_transform
        self.image_format = image_format
        self.flip_prob = flip_prob
        self.max_length = max_length

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Read INPUT.FORMAT and INPUT.CAPTION."""
        if cfg.INPUT.FORMAT not in ("RGB", "BGR"):
            raise UserError(f"CaptionMapper reads RGB or BGR images; INPUT.FORMAT is '{cfg.INPUT.FORMAT}'.")
        tokenizer = SentencePieceTokenizer(cfg.INPUT.CAPTION.TOKENIZER)
        if tokenizer.vocab_size != cfg.MODEL.TEXTUAL.VOCAB_SIZE:
            raise UserError(
                f"The tokenizer {cfg.INPUT.CAPTION.TOKENIZER} has {tokenizer.vocab_size} pieces, and the model "
                f"{cfg.MODEL.TEXTUAL.VOCAB_SIZE}.\nSet MODEL.TEXTUAL.VOCAB_SIZE {tokenizer.vocab_size}."
            )
        return {
            "is_train": is_train,
            "tokenizer": tokenizer,
            "image_transform": build_image_transform(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "flip_prob": cfg.INPUT.CAPTION.FLIP_PROB,
            "max_length": cfg.INPUT.CAPTION.MAX_LENGTH,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Turn a dataset dict into a pretraining example.

        Returns:
            "image" (3, S, S) uint8, "caption_tokens" (L,) int64 from [SOS] to [EOS], "image_id", "height", "width".

        Raises:
            UserError: the image cannot be read or has no caption.
        """
        pixels = np.array(read_image(dict(dataset_dict), "RGB"))
        # Channels stay last in memory: the crop reads a part only, and torch resizes that layout twice as fast.
        image = self.image_transform(torch.from_numpy(pixels).permute(2, 0, 1))
        caption = self._choose_caption(dataset_dict)
        if self.is_train and torch.rand(()) < self.flip_prob:
            image, caption = image.flip(2), exchange_left_and_right(caption)
        if self.image_format == "BGR":
            image = image.flip(0)
        return {
            "image": image.contiguous(),
            "caption_tokens": torch.tensor(self._tokens(caption)),
            "image_id": dataset_dict["image_id"],
            # Square, so that DATALOADER.ASPECT_RATIO_GROUPING leaves the order of images alone.
            "height": image.shape[1],
            "width": image.shape[2],
        }

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


def build_image_transform(cfg: CfgNode, is_train: bool) -> v2.Transform:
    """Build the image part of INPUT.CAPTION: random crop and colour jitter in training, else a centre crop."""
    caption = cfg.INPUT.CAPTION
    if not is_train:
        return v2.Compose([v2.Resize(caption.CROP_SIZE), v2.CenterCrop(caption.CROP_SIZE)])
    crop = v2.RandomResizedCrop(caption.CROP_SIZE, scale=tuple(caption.CROP_SCALE))
    jitter = v2.ColorJitter(*caption.COLOR_JITTER)
    return v2.Compose([crop, v2.RandomApply([jitter], p=caption.COLOR_JITTER_PROB)])


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
