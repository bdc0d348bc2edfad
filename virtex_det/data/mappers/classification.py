"""The mapper of image classification."""

from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from torchvision.transforms import v2

from virtex_det.data.build import MAPPER_REGISTRY
from virtex_det.data.datasets.image_folders import check_labels
from virtex_det.data.images import read_image
from virtex_det.errors import UserError


@MAPPER_REGISTRY.register()
class ClassificationMapper:
    """Makes a square image and its label, if any; randomness is torch's, which the loader seeds.

    Attributes:
        skips_broken_images: training skips images that cannot be read.
    """

    skips_broken_images = True

    gives_squares = True  # so that DATALOADER.ASPECT_RATIO_GROUPING does not reorder images

    @configurable
    def __init__(
        self, *, image_transform: v2.Transform, image_format: str, max_value: float = 0.0
    ) -> None:
        """Make a mapper from a config, ``ClassificationMapper(cfg, is_train)``, or from its parts.

        Args:
            image_transform: maps an RGB uint8 tensor (3, H, W) to (3, S, S).
            image_format: channel order of the result, "RGB" or "BGR".
            max_value: as INPUT.MAX_VALUE.
        """
        self.image_transform = image_transform
        self.image_format = image_format
        self.max_value = max_value

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Read INPUT.FORMAT, MAX_VALUE and CLASSIFICATION; check the datasets' classes."""
        if cfg.INPUT.FORMAT not in ("RGB", "BGR"):
            raise UserError(
                "ClassificationMapper reads RGB or BGR images; INPUT.FORMAT is "
                f"'{cfg.INPUT.FORMAT}'."
            )
        names = [*(cfg.DATASETS.TRAIN if is_train else ()), *cfg.DATASETS.TEST]
        check_labels(names, cfg.MODEL.CLASSIFIER.NUM_CLASSES)
        return {
            "image_transform": _build_transform(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "max_value": cfg.INPUT.MAX_VALUE,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Turn a dataset dict into an example.

        Returns:
            "image" (3, S, S) uint8, "image_id", "height", "width", and "label" where the dict has
            one.

        Raises:
            UserError: the image cannot be read.
        """
        pixels = np.array(read_image(dict(dataset_dict), "RGB", self.max_value))
        # shape: (3, S, S)
        image = self.image_transform(torch.from_numpy(pixels).permute(2, 0, 1))
        if self.image_format == "BGR":
            image = image.flip(0)
        example: dict[str, Any] = {
            key: dataset_dict[key] for key in ("image_id", "label") if key in dataset_dict
        }
        return {
            **example,
            "image": image.contiguous(),
            "height": image.shape[1],
            "width": image.shape[2],
        }


def _build_transform(cfg: CfgNode, is_train: bool) -> v2.Transform:
    settings = cfg.INPUT.CLASSIFICATION
    if not is_train:
        return v2.Compose([v2.Resize(settings.RESIZE), v2.CenterCrop(settings.CROP_SIZE)])
    crop = v2.RandomResizedCrop(settings.CROP_SIZE, scale=tuple(settings.CROP_SCALE))
    return v2.Compose([crop, v2.RandomHorizontalFlip(settings.FLIP_PROB)])
