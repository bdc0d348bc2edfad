"""A look at the data of a training before it: what they have, and what the training would refuse.

What would be refused is found by the checks that ``train_net.py`` makes before its first step.
"""

import re
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode

from virtex_det.config import load_config
from virtex_det.data.classes import check_same_classes
from virtex_det.data.datasets import check_datasets, keep_loaded
from virtex_det.data.datasets.annotation_content import parsing_once
from virtex_det.data.datasets.by_name import UNLABELLED, find_source
from virtex_det.data.datasets.class_rules import Rules
from virtex_det.data.datasets.loading import forget_loaded
from virtex_det.data.following import give_classes
from virtex_det.data.shared_images import find_shared_images
from virtex_det.data.training_set import forget_training_set
from virtex_det.engine.preflight import check_evaluation, check_training
from virtex_det.errors import UserError
from virtex_det.evaluation.build import evaluator_kind
from virtex_det.own_data.survey import Survey, collected_warnings, mask_keys, survey

BASE = "detectron2/_base_mask_rcnn_R_50_FPN.yaml"
# Words in the name of a split or of an annotation file that say that it is not trained on.
_NOT_TRAINED_ON = {"val", "valid", "validation", "minival", "test", "testdev", "eval"}


class Shared(NamedTuple):
    """Images of a data set that an earlier one has, too, under one path or as copies.

    Attributes:
        names: of the earlier data set and of this one.
        files: path in the earlier one by path in this one.
    """

    names: tuple[str, str]
    files: dict[str, str]


class Look(NamedTuple):
    """What a look at the data found.

    Attributes:
        train: the data sets to train on that could be read.
        val: those to evaluate on.
        shared: images in two of them.
        problems: why a training would not begin; empty if it would.
        notes: other warnings of its checks.
        rules: of the classes, as DATASETS.CLASSES; empty for those of the data.
    """

    train: tuple[Survey, ...]
    val: tuple[Survey, ...]
    shared: list[Shared]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    rules: Rules = ()


def look_at(train: Sequence[str], val: Sequence[str], rules: Rules = ()) -> Look:
    """Look at data sets to train and to evaluate on.

    Args:
        train: names of those to train on.
        val: names of those to evaluate on.
        rules: of their classes, as DATASETS.CLASSES; empty for those of the data.

    Raises:
        UserError: no data set could be read, or there are rules and one is registered with classes
            of its own.
    """
    give_classes([*train, *val], rules)
    surveys: dict[str, Survey] = {}
    problems: list[str] = []
    with parsing_once():
        for name in dict.fromkeys([*train, *val]):
            _try(problems, _read, name, surveys)
        if not surveys:
            raise UserError("\n\n".join(dict.fromkeys(problems)))
        of_train, of_val = (
            tuple(surveys[name] for name in names if name in surveys) for names in (train, val)
        )
        with collected_warnings() as notes:
            problems += _refused(of_train, of_val, rules)
    forget_loaded()
    forget_training_set()
    told = {note for each in surveys.values() for note in each.notes}
    new = [note for note in dict.fromkeys(notes) if note not in told]
    shared = _shared([*surveys.values()])
    return Look(of_train, of_val, shared, tuple(dict.fromkeys(problems)), tuple(new), rules)


def divide(names: Sequence[str], val: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Divide data sets into those to train on and those to evaluate on.

    Args:
        names: data sets; if ``val`` is empty, those whose split or annotation file is called val,
            valid, test or the like are not trained on, unless all are.
        val: data sets that are only evaluated on.

    Raises:
        UserError: a name is unknown, or its files are missing.
    """
    check_datasets([*names, *val])
    names = [*dict.fromkeys(names)]
    chosen = [*dict.fromkeys(val)] or [name for name in names if _is_for_validation(name)]
    train = [name for name in names if val or name not in chosen]
    return (train, chosen) if train else (names, [])


def model_keys(train: Sequence[Survey]) -> dict[str, Any]:
    """Return the config keys that training data decide: masks, and the number of classes.

    Args:
        train: one data set or more.
    """
    number = max(len(each.classes) for each in train)
    return {**mask_keys(train), "MODEL.ROI_HEADS.NUM_CLASSES": max(number, 1)}


def _shared(surveys: Sequence[Survey]) -> list[Shared]:
    """Return the images that are in two of several data sets, each pair of sets that has some."""
    files = [
        {str(entry["file_name"]) for entry in each.dicts if "encoded_image" not in entry}
        for each in surveys
    ]
    return [
        Shared((surveys[first].name, surveys[second].name), both)
        for first, second in combinations(range(len(surveys)), 2)
        if (both := find_shared_images(files[second], files[first]))
    ]


def _is_for_validation(name: str) -> bool:
    source = find_source(name)
    if source is None:
        text = name
    elif source.split:
        text = source.split
    else:
        text = Path(source.place).stem
    return not _NOT_TRAINED_ON.isdisjoint(re.split(r"[^a-z]+", text.lower()))


def _refused(train: Sequence[Survey], val: Sequence[Survey], rules: Rules) -> list[str]:
    """Return the messages with which a training on these data would end before its first step."""
    problems: list[str] = []
    good = [each for each in train if _has_labels(each, problems)]
    keys = {**model_keys(good or train or val), "DATASETS.CLASSES": rules}
    for each in good:
        cfg = _config(keys | model_keys([each]), [each.name], [])
        _keep([each], boxes_alone=not cfg.MODEL.MASK_ON)
        _try(problems, check_training, cfg)
    for each in val:
        if _has_labels(each, problems):
            own = {"MODEL.ROI_HEADS.NUM_CLASSES": len(each.classes) or 1}
            cfg = _config({**keys, **own}, [], [each.name])
            _keep([each], boxes_alone=False)
            _try(problems, check_evaluation, cfg)
    names = [each.name for each in (*train, *val)]
    _try(problems, check_same_classes, _config(keys, [], []), names)
    return problems


def _has_labels(survey: Survey, problems: list[str]) -> bool:
    if survey.is_labelled and evaluator_kind(survey.name) != UNLABELLED:
        return True
    problems.append(
        f"{survey.name} has images without labels: there is nothing to train or to evaluate on.\n"
        "Name the data with their labels, such as coco:FILE.json:IMAGES or yolo:data.yaml:train."
    )
    return False


def _config(keys: dict[str, Any], train: list[str], test: list[str]) -> CfgNode:
    names = {"DATASETS.TRAIN": tuple(train), "DATASETS.TEST": tuple(test)}
    return load_config(BASE, {**keys, **names, "DATALOADER.NUM_WORKERS": 0})


def _keep(surveys: Sequence[Survey], *, boxes_alone: bool) -> None:
    """Keep what was read for the checks, unless these read boxes of invalid masks, too."""
    for each in surveys:
        if not boxes_alone or not each.notes:
            keep_loaded(each.name, each.dicts, boxes_alone=boxes_alone)


def _read(name: str, surveys: dict[str, Survey]) -> None:
    surveys[name] = survey(name)


def _try(problems: list[str], step: Callable[..., object], *arguments: object) -> None:
    """Call a function, and keep a user's mistake that it finds among the problems."""
    try:
        step(*arguments)
    except UserError as error:
        problems.append(str(error))
