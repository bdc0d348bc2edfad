"""Dataset dicts to detection training examples: Detectron2's DatasetMapper, tensor for tensor, without its copies."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T
from detectron2.structures import Instances

from virtex_det.data.build import MAPPER_REGISTRY
from virtex_det.data.images import image_tensor, read_image
from virtex_det.errors import UserError

# For what DetectionMapper leaves out: keypoints, semantic segmentation, precomputed proposals.
MAPPER_REGISTRY.register(DatasetMapper)


class FastResizeTransform(T.ResizeTransform):
    """Detectron2's resize, with torch's uint8 antialiased kernel for images.

    Where the two round differently values differ by 1 (0.1 % of them on COCO images at usual sizes), very rarely by 2.
    """

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        if interp is not None or img.dtype != np.uint8 or img.ndim != 3:
            return super().apply_image(img, interp)
        # A copy, because torch takes neither mirrored nor read-only memory; the input is small beside the output.
        pixels = torch.from_numpy(np.array(img, order="C")).permute(2, 0, 1)[None]
        resized = F.interpolate(pixels, (self.new_h, self.new_w), mode="bilinear", antialias=True)
        return resized[0].permute(1, 2, 0).numpy()


class FastResizeShortestEdge(T.ResizeShortestEdge):
    """Detectron2's ResizeShortestEdge, drawing the same sizes, by FastResizeTransform."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        resize = super().get_transform(image)
        if not isinstance(resize, T.ResizeTransform):
            return resize
        return FastResizeTransform(resize.h, resize.w, resize.new_h, resize.new_w)


@MAPPER_REGISTRY.register()
class DetectionMapper:
    """Boxes, classes and masks of one image, augmented together with it."""

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: list[T.Augmentation],
        image_format: str,
        use_instance_mask: bool,
        instance_mask_format: str,
        recompute_boxes: bool,
    ) -> None:
        """Make a mapper from a config, ``DetectionMapper(cfg, is_train)``, or from its parts.

        Args:
            is_train: keep the annotations.
            augmentations: Detectron2's; they see RGB when the format is BGR, so they must treat channels alike.
            image_format: as INPUT.FORMAT.
            use_instance_mask: keep masks, as MODEL.MASK_ON.
            instance_mask_format: "polygon" or "bitmask", as INPUT.MASK_FORMAT.
            recompute_boxes: take boxes from the cropped masks.
        """
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.use_instance_mask = use_instance_mask
        self.instance_mask_format = instance_mask_format
        self.recompute_boxes = recompute_boxes

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Read the arguments that Detectron2's DatasetMapper reads, and INPUT.FAST_RESIZE."""
        if cfg.MODEL.KEYPOINT_ON or cfg.MODEL.LOAD_PROPOSALS:
            raise UserError(
                "DetectionMapper loads boxes and masks, and the config asks for keypoints or precomputed proposals.\n"
                "Set DATALOADER.MAPPER DatasetMapper for Detectron2's own."
            )
        augmentations = detection_utils.build_augmentation(cfg, is_train)
        if cfg.INPUT.FAST_RESIZE:
            augmentations = [_fast(augmentation) for augmentation in augmentations]
        crops = is_train and cfg.INPUT.CROP.ENABLED
        if crops and cfg.MODEL.MASK_ON and cfg.INPUT.MASK_FORMAT == "polygon" and find_spec("shapely") is None:
            raise UserError(
                "INPUT.CROP.ENABLED crops mask polygons, which needs Shapely: pip install shapely, or set "
                "INPUT.MASK_FORMAT bitmask."
            )
        if crops:
            augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
        return {
            "is_train": is_train,
            "augmentations": augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "use_instance_mask": cfg.MODEL.MASK_ON,
            "instance_mask_format": cfg.INPUT.MASK_FORMAT,
            "recompute_boxes": crops and cfg.MODEL.MASK_ON,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Turn a dataset dict into what Detectron2's models take; the dict itself stays as it is.

        Returns:
            The dict's other entries, "image" (C, H, W) and, in training, "instances".

        Raises:
            UserError: image or annotations cannot be used; names the file.
        """
        example = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        augmented = T.AugInput(read_image(example, self.image_format))
        transforms = self.augmentations(augmented)
        example["image"] = image_tensor(augmented.image, self.image_format)
        if self.is_train and "annotations" in dataset_dict:
            try:
                example["instances"] = self._instances(
                    dataset_dict["annotations"], transforms, augmented.image.shape[:2]
                )
            except ValueError as error:
                raise UserError(_annotation_advice(example["file_name"], error)) from error
        return example

    def _instances(self, annotations: list[dict], transforms: T.TransformList, size: tuple[int, int]) -> Instances:
        transformed = [
            detection_utils.transform_instance_annotations(self._copy(annotation), transforms, size)
            for annotation in annotations
            if not annotation.get("iscrowd", 0)
        ]
        if self.use_instance_mask and any("segmentation" not in annotation for annotation in transformed):
            raise ValueError("an object has no segmentation (boxes alone are enough with MODEL.MASK_ON False)")
        instances = detection_utils.annotations_to_instances(transformed, size, self.instance_mask_format)
        if self.recompute_boxes and instances.has("gt_masks"):
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return detection_utils.filter_empty_instances(instances)

    def _copy(self, annotation: dict) -> dict:
        """Copy what the transforms would write into: the dict itself, and polygons that are arrays already."""
        unused = {"keypoints"} if self.use_instance_mask else {"keypoints", "segmentation"}
        copied = {key: value for key, value in annotation.items() if key not in unused}
        if isinstance(copied.get("segmentation"), list):
            copied["segmentation"] = [np.array(polygon) for polygon in copied["segmentation"]]
        return copied


def _fast(augmentation: T.Augmentation) -> T.Augmentation:
    if type(augmentation) is not T.ResizeShortestEdge:
        return augmentation
    return FastResizeShortestEdge(augmentation.short_edge_length, augmentation.max_size, augmentation.sample_style)


def _annotation_advice(file_name: str, error: ValueError) -> str:
    return (
        f"Annotations of {file_name} cannot be used: {error}\n"
        "Polygons need at least 3 points each. Where masks are run-length encoded, set INPUT.MASK_FORMAT bitmask."
    )
