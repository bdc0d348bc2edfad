"""Whether images have what a model learns from besides boxes and masks: classes of pixels, keypoints, traces."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, detection_utils

from virtex_det.data.datasets import find_missing
from virtex_det.data.datasets.missing_files import list_missing
from virtex_det.data.datasets.objects import name_object
from virtex_det.engine.preflight.traces import check_traces
from virtex_det.errors import BrokenExample, UserError
from virtex_det.image_files import check_eight_bits

SEMANTIC = ("PanopticFPN", "SemanticSegmentor")
_LOOKED_AT = 8  # semantic masks that are read


def check_inputs(cfg: CfgNode, dicts: Sequence[Mapping[str, Any]]) -> None:
    """See that a training can take from its images all that its model learns from.

    Args:
        cfg: of the model.
        dicts: the images to train on.

    Raises:
        UserError: names the image and the object that lacks something.
    """
    if cfg.MODEL.META_ARCHITECTURE in SEMANTIC:
        _check_semantic_masks(cfg, dicts)
    if cfg.MODEL.KEYPOINT_ON:
        _check_keypoints(cfg, dicts)
    check_traces(cfg, dicts)


def check_keypoint_names(cfg: CfgNode) -> None:
    """See that the training data name the keypoints that the model finds; a flip exchanges left and right by them.

    Raises:
        UserError: a name is missing, or there are more or fewer than the model finds.
    """
    wanted = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    for name in cfg.DATASETS.TRAIN if cfg.MODEL.KEYPOINT_ON else ():
        metadata = MetadataCatalog.get(name)
        names, flips = metadata.get("keypoint_names"), metadata.get("keypoint_flip_map")
        example = 'MetadataCatalog.get("{}").set(keypoint_names=[...], keypoint_flip_map=[("left_eye", "right_eye")])'
        if names is None or flips is None:
            raise UserError(
                f"MODEL.KEYPOINT_ON is True, and data set {name} names no keypoints.\n"
                f"If it has keypoints, name them, and the pairs that a flip exchanges: {example.format(name)}\n"
                "Else train on data with keypoints, such as keypoints_coco_2017_train, or set MODEL.KEYPOINT_ON False."
            )
        if len(names) != wanted:
            raise UserError(
                f"the model finds {wanted} keypoints, data set {name} has {len(names)}: {', '.join(names[:5])} ...\n"
                f"Set MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS {len(names)}."
            )
        if unknown := [point for pair in flips for point in pair if point not in names]:
            raise UserError(
                f"data set {name}: its keypoint_flip_map has {unknown[0]!r}, which keypoint_names has not.\n"
                "Name in it pairs of keypoints that a flip of the image exchanges."
            )


def _check_semantic_masks(cfg: CfgNode, dicts: Sequence[Mapping[str, Any]]) -> None:
    architecture, names = cfg.MODEL.META_ARCHITECTURE, ", ".join(cfg.DATASETS.TRAIN)
    without = [entry for entry in dicts if not entry.get("sem_seg_file_name")]
    if without:
        only_objects = architecture == "PanopticFPN"
        raise UserError(
            f"{architecture} learns a class for each pixel, and {len(without)} of {len(dicts)} images of {names} have "
            f"no sem_seg_file_name, e.g. image {without[0]['image_id']} ({without[0].get('file_name')}).\n"
            "Train on data with semantic masks, such as coco_2017_train_panoptic_separated, or name the mask of each "
            "image in the dicts of your function: an 8-bit grey picture of class numbers."
            + (
                " For boxes and masks alone set MODEL.META_ARCHITECTURE GeneralizedRCNN."
                if only_objects
                else ""
            )
        )
    for name in cfg.DATASETS.TRAIN:
        classes = MetadataCatalog.get(name).get("stuff_classes")
        if classes and len(classes) != cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
            raise UserError(
                f"the semantic head has {cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES} classes, data set {name} has "
                f"{len(classes)} stuff_classes.\nSet MODEL.SEM_SEG_HEAD.NUM_CLASSES {len(classes)}."
            )
    if missing := find_missing([{"file_name": str(entry["sem_seg_file_name"])} for entry in dicts]):
        raise UserError(
            f"{names}: {len(missing)} of {len(dicts)} semantic masks have no file, e.g.\n{list_missing(missing)}\n"
            "Complete the folder, or correct sem_seg_file_name."
        )
    for entry in dicts[:: len(dicts) // _LOOKED_AT + 1]:
        _check_semantic_mask(cfg, entry)


def _check_semantic_mask(cfg: CfgNode, entry: Mapping[str, Any]) -> None:
    file, classes = str(entry["sem_seg_file_name"]), cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    try:
        check_eight_bits(file)
        mask = detection_utils.read_image(file, "L")[:, :, 0]
    except (BrokenExample, OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"the semantic mask of image {entry['image_id']} cannot be used: {error}"
        ) from error
    size = [entry.get("height", mask.shape[0]), entry.get("width", mask.shape[1])]
    if [*mask.shape] != size:
        raise UserError(
            f"the semantic mask {file} has [height, width] {[*mask.shape]}, and its image {size}.\n"
            "A mask needs the size of its image."
        )
    found = np.unique(mask)
    wrong = found[(found >= classes) & (found != cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE)]
    if len(wrong):
        raise UserError(
            f"the semantic mask {file} has the values {', '.join(map(str, wrong[:5]))}; expected class numbers below "
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES {classes}, or MODEL.SEM_SEG_HEAD.IGNORE_VALUE "
            f"{cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE}.\nSet NUM_CLASSES to the number of classes, and save masks as "
            "8-bit grey: of a palette picture Detectron2 takes the brightness of the colours."
        )


def _check_keypoints(cfg: CfgNode, dicts: Sequence[Mapping[str, Any]]) -> None:
    wanted, visible = 3 * cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS, 0
    for entry in dicts:
        for number, found in enumerate(entry.get("annotations", ())):
            if found.get("iscrowd", 0):
                continue
            points = found.get("keypoints")
            if not _are_numbers(points, wanted):
                raise UserError(
                    f"{name_object(entry, number)} has keypoints {points!r:.80}; expected "
                    f"{wanted} numbers, x, y and visibility (0, 1 or 2) of each of the "
                    f"{wanted // 3} keypoints of MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS.\n"
                    "An object without them has zeros. Without keypoints set MODEL.KEYPOINT_ON False."
                )
            visible += sum(value > 0 for value in points[2::3])
    if not visible:
        raise UserError(
            f"no object of {', '.join(cfg.DATASETS.TRAIN)} has a visible keypoint, so there is nothing to learn.\n"
            "The visibility of a keypoint is 1 or 2 where it is known. Without keypoints set MODEL.KEYPOINT_ON False."
        )


def _are_numbers(values: Any, count: int) -> bool:
    is_list = isinstance(values, list | tuple | np.ndarray) and len(values) == count
    return is_list and all(
        isinstance(value, int | float | np.number) and math.isfinite(value) for value in values
    )
