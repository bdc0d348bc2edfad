"""Checks that images have regions for LocCa, with boxes as fractions of the image."""

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode

from virtex_det.config.mappers import mapper_name
from virtex_det.data.mappers.caption import captions_in
from virtex_det.data.mappers.region import RegionMapper, check_boxes, visible_box
from virtex_det.data.traces import Window
from virtex_det.errors import UserError

_WHOLE = Window(0, 0, 1, 1)


def check_regions(cfg: CfgNode, dicts: Sequence[Mapping[str, Any]]) -> None:
    """Check that LocCa gets a region to learn from, and that all boxes are in their images.

    The check of traces ends at the first region. Single images without one are valid: they have
    captions.

    Args:
        cfg: of the model.
        dicts: the images to train on; none for shards, which have captions only.

    Raises:
        UserError: no image has a region, a box is outside its image, or an image has no caption.
    """
    if mapper_name(cfg) != "RegionMapper":
        return
    for entry in dicts:
        check_boxes(entry)
    mapper = RegionMapper(cfg, is_train=False)
    for entry in dicts:
        for number in range(len(captions_in(entry))):
            for region in mapper.regions(entry, number):
                if visible_box(region, _WHOLE, is_flipped=False) is not None:
                    return
    raise UserError(_no_region(cfg, dicts))


def _no_region(cfg: CfgNode, dicts: Sequence[Mapping[str, Any]]) -> str:
    names = ", ".join(cfg.DATASETS.TRAIN)
    sets = (
        "Set DATASETS.TRAIN to captions with boxes, such as coco_2017_train_regions or "
        "regions:CAPTIONS.json:INSTANCES.json:IMAGE_FOLDER, or to narratives with traces, such as "
        "coco_2017_train_narratives."
    )
    if not any(entry.get("traces") for entry in dicts):
        return f"LocCa learns from regions, and {names} has captions without boxes.\n{sets}"
    reason = "no point of a trace lies in its image while a word is spoken"
    if cfg.INPUT.CAPTION.CONCEPTS:
        reason += f" that INPUT.CAPTION.CONCEPTS {cfg.INPUT.CAPTION.CONCEPTS} has"
    return (
        f"LocCa learns from regions, and {names} has none: {reason}.\n"
        "Expected x and y of a trace as fractions of the image, times in seconds since the start "
        f"of the recording, and more than one point for a word. {sets}"
    )
