"""Checks of what models learn from besides boxes and masks: semantic masks, keypoints, traces."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, detection_utils

from virtex_det.data.datasets import find_missing
from virtex_det.data.datasets.missing_files import list_missing
from virtex_det.data.datasets.objects import name_object
from virtex_det.engine.preflight.regions import check_regions
from virtex_det.engine.preflight.traces import check_traces
from virtex_det.errors import BrokenExample, UserError
from virtex_det.image_files import check_eight_bits

SEMANTIC = ("PanopticFPN", "SemanticSegmentor")
_SAMPLE = 8  # number of semantic masks that are read


def check_inputs(cfg: CfgNode, dicts: Sequence[Mapping[str, Any]]) -> None:
    """Check that training images have the semantic masks, keypoints and traces of the model's task.

    Args:
        cfg: of the model.
        dicts: the images to train on.

    Raises:
        UserError: names the image, or the object, that lacks something.
    """
    if cfg.MODEL.META_ARCHITECTURE in SEMANTIC:
        _check_semantic_masks(cfg, dicts)
    if cfg.MODEL.KEYPOINT_ON:
        _check_keypoints(cfg, dicts)
    check_traces(cfg, dicts)
    check_regions(cfg, dicts)


def check_keypoint_names(cfg: CfgNode) -> None:
    """Check that the training data name the model's keypoints, and the pairs that a flip exchanges.

    Raises:
        UserError: names are missing, or there are more or fewer than the model's keypoints.
    """
    expected = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    for name in cfg.DATASETS.TRAIN if cfg.MODEL.KEYPOINT_ON else ():
        metadata = MetadataCatalog.get(name)
        names, flips = metadata.get("keypoint_names"), metadata.get("keypoint_flip_map")
        if names is None or flips is None:
            raise UserError(
                f"MODEL.KEYPOINT_ON is True, but data set {name} does not name its keypoints.\n"
                "If it has keypoints, name them, and the pairs that a flip exchanges: "
                f'MetadataCatalog.get("{name}").set(keypoint_names=[...], '
                'keypoint_flip_map=[("left_eye", "right_eye")])\n'
                "Otherwise train on data with keypoints, such as keypoints_coco_2017_train, or set "
                "MODEL.KEYPOINT_ON False."
            )
        if len(names) != expected:
            raise UserError(
                f"the model finds {expected} keypoints, data set {name} has {len(names)}: "
                f"{', '.join(names[:5])} ...\n"
                f"Set MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS {len(names)}."
            )
        if unknown := [point for pair in flips for point in pair if point not in names]:
            raise UserError(
                f"data set {name}: its keypoint_flip_map names {unknown[0]!r}, which is missing "
                "from keypoint_names.\nList in it the pairs of keypoints that a flip exchanges."
            )


def _check_semantic_masks(cfg: CfgNode, dicts: Sequence[Mapping[str, Any]]) -> None:
    architecture, names = cfg.MODEL.META_ARCHITECTURE, ", ".join(cfg.DATASETS.TRAIN)
    without = [entry for entry in dicts if not entry.get("sem_seg_file_name")]
    if without:
        message = (
            f"{architecture} learns a class for each pixel, but {len(without)} of {len(dicts)} "
            f"images of {names} have no sem_seg_file_name, e.g. image {without[0]['image_id']} "
            f"({without[0].get('file_name')}).\n"
            "Train on data with semantic masks, such as coco_2017_train_panoptic_separated, or let "
            "the dict of each image name its mask: an 8-bit grey picture of class numbers."
        )
        if architecture == "PanopticFPN":
            message += " For boxes and masks alone set MODEL.META_ARCHITECTURE GeneralizedRCNN."
        raise UserError(message)
    for name in cfg.DATASETS.TRAIN:
        classes = MetadataCatalog.get(name).get("stuff_classes")
        if classes and len(classes) != cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
            raise UserError(
                f"the semantic head has {cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES} classes, data set "
                f"{name} has {len(classes)} stuff_classes.\n"
                f"Set MODEL.SEM_SEG_HEAD.NUM_CLASSES {len(classes)}."
            )
    if missing := find_missing([{"file_name": str(entry["sem_seg_file_name"])} for entry in dicts]):
        raise UserError(
            f"{names}: {len(missing)} of {len(dicts)} semantic masks have no file, e.g.\n"
            f"{list_missing(missing)}\nComplete the folder, or correct sem_seg_file_name."
        )
    for entry in dicts[:: len(dicts) // _SAMPLE + 1]:
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
            f"the semantic mask {file} has [height, width] {[*mask.shape]}; expected {size}, the "
            "size of its image."
        )
    found = np.unique(mask)
    wrong = found[(found >= classes) & (found != cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE)]
    if len(wrong):
        raise UserError(
            f"the semantic mask {file} has the values {', '.join(map(str, wrong[:5]))}; expected "
            f"class numbers below MODEL.SEM_SEG_HEAD.NUM_CLASSES {classes}, or "
            f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE {cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE}.\n"
            "Set NUM_CLASSES to the number of classes, and save masks as 8-bit grey: Detectron2 "
            "reads the brightness of a palette picture's colours."
        )


def _check_keypoints(cfg: CfgNode, dicts: Sequence[Mapping[str, Any]]) -> None:
    expected, visible = 3 * cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS, 0
    for entry in dicts:
        for number, found in enumerate(entry.get("annotations", ())):
            if found.get("iscrowd", 0):
                continue
            points = found.get("keypoints")
            if not _are_numbers(points, expected):
                raise UserError(
                    f"{name_object(entry, number)} has keypoints {points!r:.80}; expected "
                    f"{expected} numbers: x, y and visibility (0, 1 or 2) of "
                    f"{expected // 3} keypoints (MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS).\n"
                    "Give an object without keypoints zeros. To train without keypoints set "
                    "MODEL.KEYPOINT_ON False."
                )
            visible += sum(value > 0 for value in points[2::3])
    if not visible:
        raise UserError(
            f"no object of {', '.join(cfg.DATASETS.TRAIN)} has a visible keypoint, so there is "
            "nothing to learn.\n"
            "Set the visibility of each known keypoint to 1 or 2. To train without keypoints set "
            "MODEL.KEYPOINT_ON False."
        )


def _are_numbers(values: Any, count: int) -> bool:
    is_list = isinstance(values, list | tuple | np.ndarray) and len(values) == count
    return is_list and all(
        isinstance(value, int | float | np.number) and math.isfinite(value) for value in values
    )
