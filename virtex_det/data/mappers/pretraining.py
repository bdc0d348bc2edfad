"""The base of the pretraining mappers: VirTex's image augmentation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from torchvision.transforms import v2

from virtex_det.data.images import read_image
from virtex_det.errors import UserError

_LONGEST = 64  # longest side by shortest; of a longer image, a centre crop enlarges only the middle


class PretrainingMapper:
    """VirTex's image augmentation (sec. 3.2): crop, flip, colour jitter. All randomness is torch's.

    Attributes:
        skips_broken_images: training skips images that cannot be read.
        gives_squares: so that DATALOADER.ASPECT_RATIO_GROUPING does not reorder images.
    """

    skips_broken_images = True
    gives_squares = True

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        image_transform: v2.Transform,
        image_format: str,
        flip_prob: float,
        max_value: float = 0.0,
        captions_per_image: int = 1,
    ) -> None:
        """
        Args:
            is_train: flip at random.
            image_transform: maps an RGB uint8 tensor (3, H, W) to (3, S, S).
            image_format: channel order of the result, "RGB" or "BGR".
            flip_prob: probability of a flip.
            max_value: as INPUT.MAX_VALUE.
            captions_per_image: captions of an image in each training step; of an image with fewer,
                all. Evaluation reads the first caption.
        """
        self.is_train = is_train
        self.image_transform = image_transform
        self.image_format = image_format
        self.flip_prob = flip_prob
        self.max_value = max_value
        self.captions_per_image = captions_per_image if is_train else 1

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Read INPUT.FORMAT, INPUT.MAX_VALUE and the image part of INPUT.CAPTION."""
        if cfg.INPUT.FORMAT not in ("RGB", "BGR"):
            raise UserError(
                f"{cls.__name__} reads RGB or BGR images; INPUT.FORMAT is '{cfg.INPUT.FORMAT}'."
            )
        return {
            "is_train": is_train,
            "image_transform": build_image_transform(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "flip_prob": cfg.INPUT.CAPTION.FLIP_PROB,
            "max_value": cfg.INPUT.MAX_VALUE,
            "captions_per_image": cfg.INPUT.CAPTION.PER_IMAGE,
        }

    def choose(self, captions: int) -> list[int]:
        """Return the numbers of the captions to read: drawn in training, otherwise the first.

        Args:
            captions: how many the image has.
        """
        if not self.is_train:
            return [0]
        return torch.randperm(captions)[: self.captions_per_image].tolist()

    @staticmethod
    def with_captions(
        example: dict[str, Any], captions: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        """Return the example of an image and what is to be learned of its captions.

        The keys of a single caption join those of the image. Several are a list under
        "by_caption", so that the image is read, augmented and encoded once for all of them.
        """
        if len(captions) == 1:
            return {**example, **captions[0]}
        return {**example, "by_caption": [*captions]}

    def map_image(self, dataset_dict: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Read and augment the image of a dataset dict.

        Returns:
            An example of "image" (3, S, S) uint8, "image_id", "height" and "width"; and whether it
            is flipped.

        Raises:
            BrokenImage: the image cannot be read.
        """
        image, is_flipped = self.augment(read_image(dict(dataset_dict), "RGB", self.max_value))
        # Square, so that DATALOADER.ASPECT_RATIO_GROUPING does not reorder images.
        size = {"height": image.shape[1], "width": image.shape[2]}
        return {"image": image, "image_id": dataset_dict["image_id"], **size}, is_flipped

    def augment(self, pixels: np.ndarray) -> tuple[torch.Tensor, bool]:
        """Augment an RGB image (H, W, 3).

        Returns:
            (3, S, S) uint8 in this mapper's channel order; and whether it is flipped.
        """
        # Channels stay last in memory, a layout that torch resizes twice as fast.
        # shape: (3, S, S)
        image = self.image_transform(torch.from_numpy(np.array(pixels)).permute(2, 0, 1))
        is_flipped = self.is_train and bool(torch.rand(()) < self.flip_prob)
        if is_flipped:
            image = image.flip(2)
        if self.image_format == "BGR":
            image = image.flip(0)
        return image.contiguous(), is_flipped


def _middle(image: torch.Tensor) -> torch.Tensor:
    """Return the middle of a very long image (3, H, W), which might fill the memory."""
    height, width = image.shape[1:]
    longest = _LONGEST * min(height, width)
    if max(height, width) <= longest:
        return image
    return v2.functional.center_crop(image, [min(height, longest), min(width, longest)])


def centre_crop(size: int) -> v2.Transform:
    """Return a transform that resizes the shorter side to ``size`` and crops the middle square."""
    return v2.Compose([_middle, v2.Resize(size), v2.CenterCrop(size)])


def build_image_transform(cfg: CfgNode, is_train: bool) -> v2.Transform:
    """Build INPUT.CAPTION's transform: random crop and jitter, or in evaluation a centre crop."""
    caption = cfg.INPUT.CAPTION
    if not is_train:
        return centre_crop(caption.CROP_SIZE)
    crop = v2.RandomResizedCrop(caption.CROP_SIZE, scale=tuple(caption.CROP_SCALE))
    jitter = v2.ColorJitter(*caption.COLOR_JITTER)
    return v2.Compose([crop, v2.RandomApply([jitter], p=caption.COLOR_JITTER_PROB)])
