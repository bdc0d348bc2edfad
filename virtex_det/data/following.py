"""What a config takes from its data: registration with its classes, number of classes, masks."""

import logging
from collections.abc import Sequence
from itertools import chain
from typing import Any

from detectron2.config import CfgNode

from virtex_det.config import with_options
from virtex_det.config.data_names import OBJECTS, is_by_name
from virtex_det.data.classes import class_names, is_detector, model_classes
from virtex_det.data.datasets import check_datasets, keep_loaded, load_dataset
from virtex_det.data.datasets.by_name import use_classes
from virtex_det.data.datasets.class_rules import Rules, as_rules
from virtex_det.data.training_set import trains_boxes_alone
from virtex_det.errors import UserError

logger = logging.getLogger(__name__)


def follow_data(cfg: CfgNode, *, trains: bool = True) -> CfgNode:
    """Return a config with what its data decide, where they are named by where they lie.

    Such data sets are registered with the classes of DATASETS.CLASSES. A detector's number of
    classes that is 0 becomes that of the data. MODEL.MASK_ON becomes False if the training data
    have no masks, and INPUT.MASK_FORMAT bitmask if their masks are run lengths. Data that are
    loaded for it are kept for their next load.

    Args:
        cfg: stays unchanged. A config that this function returned is returned unchanged.
        trains: False for an evaluation, which takes the number of classes from DATASETS.TEST.

    Raises:
        UserError: a data set is missing or invalid, DATASETS.CLASSES is set for a data set that
            is registered otherwise, or only some objects have masks.
    """
    names = [*(cfg.DATASETS.TRAIN if trains else ()), *cfg.DATASETS.TEST]
    give_classes(names, as_rules(cfg.DATASETS.CLASSES))
    own = [name for name in names if is_by_name(name, OBJECTS)]
    if trains and own and cfg.MODEL.MASK_ON and is_detector(cfg):
        cfg = _with_masks(cfg, [name for name in cfg.DATASETS.TRAIN if name in own])
    return _with_number(cfg, names, boxes_alone=trains and trains_boxes_alone(cfg))


def give_classes(names: Sequence[str], rules: Rules) -> None:
    """Register data sets that are named by where they lie with the classes of DATASETS.CLASSES.

    Args:
        names: of data sets; others stay as they are.
        rules: of ``as_rules``; empty for the classes of the data.

    Raises:
        UserError: there are rules, and a data set is registered otherwise.
    """
    own = [name for name in names if is_by_name(name, OBJECTS)]
    others = [name for name in names if name not in own]
    if rules and others:
        raise UserError(
            f"DATASETS.CLASSES is set, but {others[0]} is registered with classes of its own.\n"
            "Name the data by where they lie, such as coco:FILE.json:IMAGES, or leave "
            "DATASETS.CLASSES empty."
        )
    for name in own:
        use_classes(name, rules)


def _with_masks(cfg: CfgNode, names: Sequence[str]) -> CfgNode:
    """Return the config with masks as the training data have them."""
    check_datasets(names)
    sets = {name: _load(name, boxes_alone=False) for name in names}
    entries = chain.from_iterable(sets.values())
    objects = list(chain.from_iterable(entry.get("annotations", ()) for entry in entries))
    objects = [found for found in objects if not found.get("iscrowd", 0)]
    masks = [mask for found in objects if (mask := found.get("segmentation"))]
    if objects and not masks:
        for name, dicts in sets.items():
            keep_loaded(name, dicts, boxes_alone=True)
        logger.warning("%s: no object has a mask; MODEL.MASK_ON is set to False", ", ".join(names))
        return with_options(cfg, ["MODEL.MASK_ON", "False"])
    if len(masks) < len(objects):
        raise UserError(
            f"{len(objects) - len(masks)} of {len(objects)} objects of {', '.join(names)} have no "
            "mask.\nAdd these masks, or train on boxes alone: MODEL.MASK_ON False."
        )
    if cfg.INPUT.MASK_FORMAT == "polygon" and any(isinstance(mask, dict) for mask in masks):
        logger.warning(
            "%s: masks are run lengths; INPUT.MASK_FORMAT is set to bitmask", ", ".join(names)
        )
        return with_options(cfg, ["INPUT.MASK_FORMAT", "bitmask"])
    return cfg


def _with_number(cfg: CfgNode, names: Sequence[str], *, boxes_alone: bool) -> CfgNode:
    """Return the config with a number of classes instead of 0."""
    classes = model_classes(cfg)
    if classes is None or not classes.key or classes.number:
        return cfg
    check_datasets(names)
    for name in names:
        _load(name, boxes_alone=boxes_alone and name in cfg.DATASETS.TRAIN)
        if found := class_names(cfg, name):
            return with_options(cfg, [classes.key, str(len(found))])
    raise UserError(
        f"{classes.key} is 0, which takes the number from the data, but "
        f"{', '.join(names) or 'no data set'} names no classes.\n"
        f"Set {classes.key} to the number of classes."
    )


def _load(name: str, *, boxes_alone: bool) -> list[dict[str, Any]]:
    dicts = load_dataset(name, boxes_alone=boxes_alone)
    keep_loaded(name, dicts, boxes_alone=boxes_alone)
    return dicts
