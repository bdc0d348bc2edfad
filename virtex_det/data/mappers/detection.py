"""The mappers of detection: Detectron2's DatasetMapper, tensor for tensor, without its copies."""

import math
from numbers import Real
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from detectron2 import data
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import Instances

from virtex_det.data.build import MAPPER_REGISTRY
from virtex_det.data.images import image_tensor, read_image
from virtex_det.errors import BrokenExample, UserError
from virtex_det.image_files import BrokenImage, check_eight_bits

# Errors of Detectron2's functions for invalid annotations.
_ANNOTATION_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OverflowError,
)
_CORRECT_IT = "Correct it in the annotation file."
_INVALID = "invalid annotations"


@MAPPER_REGISTRY.register()
class DatasetMapper(data.DatasetMapper):
    """Detectron2's own mapper, for keypoints, semantic segmentation and precomputed proposals.

    Its reader returns the same pixels as DetectionMapper's for 8-bit images. Other images are
    refused, as are URLs, which it would fetch.

    Attributes:
        skips_broken_images: training skips images that cannot be read.
    """

    skips_broken_images = True

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Read the same keys as Detectron2's mapper."""
        options = super().from_config(cfg, is_train)
        augmentations = [
            _with(ResizeShortestEdge, augmentation) for augmentation in options["augmentations"]
        ]
        return {**options, "augmentations": augmentations}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Turn a dataset dict into the input of Detectron2's models.

        Raises:
            BrokenImage: the image cannot be read.
            UserError: cropping mask polygons needs Shapely.
        """
        for key in ("file_name", "sem_seg_file_name"):
            if key in dataset_dict:
                check_eight_bits(dataset_dict[key])
        try:
            return super().__call__(dataset_dict)
        except ModuleNotFoundError as error:
            raise _without_shapely(error) from error
        except (OSError, SyntaxError, detection_utils.SizeMismatchError) as error:
            raise BrokenImage(
                f"Image cannot be used: {dataset_dict['file_name']}\n{error}"
            ) from error


class FastResizeTransform(T.ResizeTransform):
    """Detectron2's resize, with torch's antialiased uint8 kernel for images.

    By rounding, 0.1 % of the values differ by 1 (COCO images at usual sizes), very few by 2.
    """

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        if interp is not None or img.dtype != np.uint8 or img.ndim != 3:
            return super().apply_image(img, interp)
        # A copy, because torch takes neither mirrored nor read-only memory; the input is small.
        pixels = torch.from_numpy(np.array(img, order="C")).permute(2, 0, 1)[None]
        resized = F.interpolate(pixels, (self.new_h, self.new_w), mode="bilinear", antialias=True)
        return resized[0].permute(1, 2, 0).numpy()


class ResizeShortestEdge(T.ResizeShortestEdge):
    """Detectron2's ResizeShortestEdge with the same sizes, but at least 1 pixel per side."""

    transform: type[T.ResizeTransform] = T.ResizeTransform

    def get_transform(self, image: np.ndarray) -> T.Transform:
        resize = super().get_transform(image)
        if not isinstance(resize, T.ResizeTransform):
            return resize
        return self.transform(
            resize.h, resize.w, max(resize.new_h, 1), max(resize.new_w, 1), resize.interp
        )


class FastResizeShortestEdge(ResizeShortestEdge):
    """ResizeShortestEdge with FastResizeTransform."""

    transform = FastResizeTransform


@MAPPER_REGISTRY.register()
class DetectionMapper:
    """Makes an augmented image with its boxes, classes and masks.

    Attributes:
        skips_broken_images: training skips images that cannot be read or have invalid annotations.

    Example:
        >>> mapper = DetectionMapper(cfg, is_train=True)  # doctest: +SKIP
        >>> mapper(DatasetCatalog.get("coco_2017_train")[0])["instances"]  # doctest: +SKIP
    """

    skips_broken_images = True

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
        max_value: float = 0.0,
    ) -> None:
        """Make a mapper from a config, ``DetectionMapper(cfg, is_train)``, or from its parts.

        Args:
            is_train: keep the annotations.
            augmentations: Detectron2's. For the format BGR they get RGB images, so they must treat
                all channels alike.
            image_format: as INPUT.FORMAT.
            use_instance_mask: keep masks, as MODEL.MASK_ON.
            instance_mask_format: "polygon" or "bitmask", as INPUT.MASK_FORMAT.
            recompute_boxes: compute boxes from the cropped masks.
            max_value: as INPUT.MAX_VALUE.
        """
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.use_instance_mask = use_instance_mask
        self.instance_mask_format = instance_mask_format
        self.recompute_boxes = recompute_boxes
        self.max_value = max_value

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Read the keys of Detectron2's DatasetMapper, INPUT.FAST_RESIZE and INPUT.MAX_VALUE."""
        if cfg.MODEL.KEYPOINT_ON or cfg.MODEL.LOAD_PROPOSALS:
            raise UserError(
                "DetectionMapper loads boxes and masks, but the config has keypoints or "
                "precomputed proposals.\n"
                "Set DATALOADER.MAPPER DatasetMapper, Detectron2's own."
            )
        augmentations = build_augmentations(cfg, is_train)
        crops = is_train and cfg.INPUT.CROP.ENABLED
        if crops:
            augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
        return {
            "is_train": is_train,
            "augmentations": augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "use_instance_mask": cfg.MODEL.MASK_ON,
            "instance_mask_format": cfg.INPUT.MASK_FORMAT,
            "recompute_boxes": crops and cfg.MODEL.MASK_ON,
            "max_value": cfg.INPUT.MAX_VALUE,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Turn a dataset dict into the input of Detectron2's models; the dict is not changed.

        Returns:
            The dict's other entries, "image" (C, H, W) and, in training, "instances".

        Raises:
            BrokenExample: the image cannot be read, or an annotation is invalid.
            UserError: the masks are not in the format of the config, or their crop needs Shapely.
        """
        example = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        augmented = T.AugInput(read_image(example, self.image_format, self.max_value))
        transforms = self.augmentations(augmented)
        example["image"] = image_tensor(augmented.image, self.image_format)
        if self.is_train and "annotations" in dataset_dict:
            annotations, size = dataset_dict["annotations"], augmented.image.shape[:2]
            try:
                example["instances"] = self._instances(annotations, transforms, size)
            except ModuleNotFoundError as error:
                raise _without_shapely(error) from error
            except _ANNOTATION_ERRORS as error:
                raise self._unusable(example, annotations, error) from error
        return example

    def _instances(
        self, annotations: list[dict], transforms: T.TransformList, size: tuple[int, int]
    ) -> Instances:
        transformed = [
            detection_utils.transform_instance_annotations(self._copy(annotation), transforms, size)
            for annotation in annotations
            if not annotation.get("iscrowd", 0)
        ]
        if self.use_instance_mask and any(
            "segmentation" not in annotation for annotation in transformed
        ):
            raise ValueError("an object has no segmentation")
        for annotation in transformed:
            mask = annotation.get("segmentation")
            # A mirrored mask of one column counts as contiguous, but torch refuses its stride.
            if isinstance(mask, np.ndarray) and 1 in mask.shape:
                annotation["segmentation"] = np.array(mask, order="C")
        instances = detection_utils.annotations_to_instances(
            transformed, size, self.instance_mask_format
        )
        if self.recompute_boxes and instances.has("gt_masks"):
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return detection_utils.filter_empty_instances(instances)

    def _unusable(
        self, example: dict[str, Any], annotations: list[dict], error: Exception
    ) -> UserError:
        """Return the error that names the invalid annotation and its fault."""
        file_name, size = example["file_name"], [example["height"], example["width"]]
        for number, annotation in enumerate(annotations):
            mask = annotation.get("segmentation")
            begin = f"Annotations of {file_name} are invalid: object {number}:"
            if fault := _fault_of_box(annotation.get("bbox")):
                return BrokenExample(f"{begin} {fault}\n{_CORRECT_IT}", _INVALID)
            if not self.use_instance_mask or annotation.get("iscrowd", 0):
                continue
            if mask is None:
                return UserError(
                    f"{begin} it has no segmentation (for boxes only, set MODEL.MASK_ON False)."
                )
            if fault := _fault_of_mask(mask, size):
                return BrokenExample(f"{begin} {fault}\n{_CORRECT_IT}", _INVALID)
            if isinstance(mask, dict) and self.instance_mask_format == "polygon":
                return UserError(
                    f"{begin} its mask is run-length encoded.\nSet INPUT.MASK_FORMAT bitmask."
                )
        return BrokenExample(
            f"Annotations of {file_name} cannot be used: {type(error).__name__}: {error}\n"
            "Compare them with docs/your_own_data.md, and the sizes and crops under INPUT with the "
            "image's size.",
            _INVALID,
        )

    def _copy(self, annotation: dict) -> dict:
        """Copy what the transforms modify: the dict itself, and polygons that are arrays."""
        unused = {"keypoints"} if self.use_instance_mask else {"keypoints", "segmentation"}
        copied = {key: value for key, value in annotation.items() if key not in unused}
        if isinstance(copied.get("segmentation"), list):
            copied["segmentation"] = [np.array(polygon) for polygon in copied["segmentation"]]
        return copied


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """Return Detectron2's augmentations, with the resize that INPUT.FAST_RESIZE selects."""
    resize = FastResizeShortestEdge if cfg.INPUT.FAST_RESIZE else ResizeShortestEdge
    return [
        _with(resize, augmentation)
        for augmentation in detection_utils.build_augmentation(cfg, is_train)
    ]


def _with(resize: type[ResizeShortestEdge], augmentation: T.Augmentation) -> T.Augmentation:
    """Return an augmentation, with our resize instead of Detectron2's."""
    if type(augmentation) is not T.ResizeShortestEdge:
        return augmentation
    return resize(augmentation.short_edge_length, augmentation.max_size, augmentation.sample_style)


def _without_shapely(error: ModuleNotFoundError) -> Exception:
    """Return what to say of a package that is not installed; Detectron2's crop needs Shapely."""
    if (error.name or "").partition(".")[0] != "shapely":
        return error
    return UserError(
        "INPUT.CROP.ENABLED crops mask polygons, which needs Shapely: pip install shapely. For "
        "boxes alone set MODEL.MASK_ON False."
    )


def _fault_of_box(box: Any) -> str:
    """Return the fault of a "bbox", "" for none."""
    numbers = list(box) if isinstance(box, list | tuple | np.ndarray) else []
    if len(numbers) == 4 and all(
        isinstance(number, Real) and math.isfinite(number) for number in numbers
    ):
        return ""
    return f'"bbox" is {_short(box)}; expected four numbers.'


def _fault_of_mask(mask: Any, size: list[int]) -> str:
    """Return the fault of a "segmentation" in an image of [height, width] `size`, "" for none."""
    if isinstance(mask, dict) and not ("counts" in mask and "size" in mask):
        return '"segmentation" has no "counts" and "size".'
    if isinstance(mask, dict):
        return (
            ""
            if list(mask["size"]) == size
            else f"its mask has the size {mask['size']}, the image {size}."
        )
    if not isinstance(mask, list):
        return f'"segmentation" is {_short(mask)}; expected a list of polygons, or run lengths.'
    if mask and all(isinstance(number, Real) for number in mask):
        return (
            f'"segmentation" is a flat list of {len(mask)} numbers; '
            "expected polygons: [[x, y, ...]]."
        )
    for polygon in mask:
        if not isinstance(polygon, list | tuple | np.ndarray) or not all(
            isinstance(each, Real) for each in polygon
        ):
            return (
                f'"segmentation" has a polygon {_short(polygon)}; expected numbers: x, y, x, y, ...'
            )
        if len(polygon) < 6 or len(polygon) % 2:
            return (
                f"it has a polygon of {len(polygon)} numbers; expected x and y of three points or "
                "more."
            )
    return ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
