"""One page about data: what a look at them found, ground truth, and augmented samples."""

from pathlib import Path
from typing import NamedTuple

from detectron2.config import CfgNode

from virtex_det.config import load_config, override
from virtex_det.data.classes import is_detector
from virtex_det.errors import UserError
from virtex_det.own_data import words
from virtex_det.own_data.look import BASE, Look, model_keys
from virtex_det.own_data.samples import (
    Sample,
    augmented,
    chosen_images,
    ground_truth,
    odd_samples,
)
from virtex_det.own_data.survey import odd_objects
from virtex_det.pages.html import render_html
from virtex_det.utils import write_atomically

_ODD = 4  # pictures of a kind of odd boxes


class DataSet(NamedTuple):
    """What the page shows of one data set."""

    title: str
    name: str
    left_out: list[str]
    odd: list[str]
    notes: list[str]
    samples: list[Sample]
    odd_samples: list[Sample]
    augmented: list[Sample]


def write_data_page(
    path: Path, look: Look, *, config_file: str = "", images: int = 12, seed: int = 0
) -> None:
    """Write the page of a look at data.

    Args:
        path: of the page.
        look: at the data.
        config_file: config whose augmentation is shown; "" for that of this package's Mask R-CNN.
        images: pictures of each kind and data set.
        seed: chooses images and augmentations.

    Raises:
        UserError: the config is invalid, or not a detector's.
    """
    cfg = _training_config(look, config_file)
    sets = [_of_set(role, cfg, images, seed) for role in words.roles(look)]
    page = render_html(
        "own_data/page.html.j2",
        look=look,
        sets=sets,
        titles=[each.title for each in sets],
        facts=words.size_rows(look),
        classes=words.class_rows(look),
        shared=words.shared_lines(look),
        config=config_file or BASE,
        sizes=_sizes(cfg),
    )
    write_atomically(path, page)


def _training_config(look: Look, config_file: str) -> CfgNode:
    cfg = load_config(config_file or BASE)
    if not is_detector(cfg):
        raise UserError(
            f"{config_file} trains a {cfg.MODEL.META_ARCHITECTURE}, not a detector: its samples "
            "have no objects.\nName the config of a detector."
        )
    keys = model_keys(look.train or look.val)
    return override(cfg, {**keys, "MODEL.MASK_ON": keys["MODEL.MASK_ON"] and cfg.MODEL.MASK_ON})


def _of_set(role: words.Role, cfg: CfgNode, images: int, seed: int) -> DataSet:
    survey = role.survey
    places = chosen_images(survey, images, seed)
    odd = [sample for each in odd_objects(survey) for sample in odd_samples(survey, each, _ODD)]
    is_trained_on = role.is_trained_on and survey.is_labelled
    return DataSet(
        role.title,
        survey.name,
        words.left_out_lines(survey) if is_trained_on else [],
        words.odd_lines(survey),
        words.reader_notes(survey),
        ground_truth(survey, places),
        odd[: 2 * images],
        augmented(cfg, survey, places, seed) if is_trained_on else [],
    )


def _sizes(cfg: CfgNode) -> str:
    sizes = ", ".join(map(str, cfg.INPUT.MIN_SIZE_TRAIN))
    return f"shortest side {sizes}, longest side up to {cfg.INPUT.MAX_SIZE_TRAIN} pixels"
