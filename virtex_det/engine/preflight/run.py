"""All checks of a run before it begins, the same for training, evaluation and a matrix."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from tqdm import tqdm

from virtex_det.data.build import check_train_loader
from virtex_det.data.classes import (
    check_classes,
    check_unnamed_classes,
    class_names,
    compare_classes,
)
from virtex_det.data.datasets import check_datasets, keep_loaded, load_dataset
from virtex_det.data.datasets.annotation_content import parsing_once
from virtex_det.data.datasets.class_rules import as_rules
from virtex_det.data.datasets.loading import forget_loaded
from virtex_det.data.following import follow_data
from virtex_det.data.shared_images import find_shared_images
from virtex_det.data.training_set import (
    are_shards,
    forget_training_set,
    image_files,
    trains_boxes_alone,
)
from virtex_det.engine.preflight.evaluation import check_test_set
from virtex_det.engine.preflight.inputs import check_inputs, check_keypoint_names
from virtex_det.engine.preflight.model import classes_of, look_at_model
from virtex_det.engine.preflight.settings import check_inference, check_names, check_settings
from virtex_det.escaping import visible
from virtex_det.evaluation.build import evaluator_kind
from virtex_det.evaluation.detection.ground_truth import forget_truths

logger = logging.getLogger(__name__)

_OTHER_CLASSES = (
    "Evaluate on a data set with the classes that the model was trained on, in the same order."
)


def check_training(
    cfg: CfgNode,
    *,
    own_train_loader: bool = True,
    own_test_loader: bool = True,
    own_evaluator: bool = True,
    keep: bool = False,
) -> None:
    """Find errors that would end a training or its evaluation, before the first step.

    The training data is kept for ``build_train_loader``, so that it is loaded once.

    Args:
        cfg: the full config.
        own_train_loader: the data comes from ``build_train_loader``, not from a subclass of the
            trainer.
        own_test_loader: evaluation reads DATASETS.TEST by ``build_test_loader``.
        own_evaluator: evaluators come from ``build_evaluator``.
        keep: keep the evaluation data for the next check. Before a training this is False: its
            evaluations load the data again, so that it takes no memory in between.

    Raises:
        UserError: says what is wrong, and what to do.
    """
    check_settings(cfg)
    check_names(cfg)
    if own_train_loader:
        check_keypoint_names(cfg)
    train = list(cfg.DATASETS.TRAIN) if own_train_loader else []
    test = list(cfg.DATASETS.TEST) if own_test_loader else []
    check_datasets([*train, *test])
    if own_evaluator:
        check_inference(cfg)
        for name in test:
            evaluator_kind(name)
    steps: list[tuple[str, Callable[[], object]]] = [("the model", lambda: look_at_model(cfg))]
    test_files: dict[str, set[str]] = {}  # of images, by data set
    for name in test:
        step = partial(_check_test, cfg, name, own_evaluator, keep, test_files)
        steps.append((name, step))
    if own_train_loader:
        steps += [(", ".join(train), lambda: _check_train(cfg, test_files))]
    _do(steps)
    check_classes(cfg, [*train, *test])


def check_trainings(configs: Sequence[CfgNode]) -> None:
    """Check several trainings; data sets that they share are loaded once.

    Raises:
        UserError: as ``check_training``.
    """
    loaded: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    try:
        for cfg in configs:
            follow_data(cfg)  # the data get the classes of this config
            alone = trains_boxes_alone(cfg)
            for name in () if are_shards(cfg) else cfg.DATASETS.TRAIN:
                key = name, alone, as_rules(cfg.DATASETS.CLASSES)
                if key not in loaded:
                    loaded[key] = load_dataset(name, boxes_alone=alone)
                keep_loaded(name, loaded[key], boxes_alone=alone)
            check_training(cfg, keep=True)
    finally:
        forget_loaded()
        forget_truths()
        forget_training_set()


def check_evaluation(cfg: CfgNode, weights: str = "", *, own_evaluator: bool = True) -> None:
    """Find errors that would end an evaluation of DATASETS.TEST, before the model is built.

    The data is kept for the evaluation.

    Args:
        cfg: the full config.
        weights: file or address of the model; its classes are compared with those of the data.
        own_evaluator: evaluators come from ``build_evaluator``.

    Raises:
        UserError: says what is wrong, and what to do.
    """
    check_settings(cfg, trains=False)
    check_names(cfg)
    if own_evaluator:
        check_inference(cfg)
    test = list(cfg.DATASETS.TEST)
    check_datasets(test)
    _do([(name, partial(_check_test, cfg, name, own_evaluator, True, {})) for name in test])
    check_classes(cfg, test)
    trained = classes_of(weights) if weights else ()
    if weights and not trained and any(class_names(cfg, name) for name in test):
        logger.warning(
            "%s does not name the classes that it was trained on: check that they are those of %s, "
            "in the same order",
            weights,
            ", ".join(test),
        )
    for name in test:
        if trained and (found := class_names(cfg, name)):
            compare_classes(
                {f"the model of {weights}": trained, f"data set {name}": found}, _OTHER_CLASSES
            )


def _check_train(cfg: CfgNode, test_files: Mapping[str, set[str]]) -> None:
    dicts, files = check_train_loader(cfg)
    check_inputs(cfg, dicts)
    for name in cfg.DATASETS.TRAIN[:1]:
        check_unnamed_classes(cfg, name, dicts)
    if comm.is_main_process():
        _tell_known_images(files, test_files)
        _tell_repeated_images(files)


def _tell_known_images(
    train_files: Mapping[str, set[str]], test_files: Mapping[str, set[str]]
) -> None:
    """Warn of test images that are trained on, too, under another name or as copies."""
    known = set().union(*train_files.values())
    for name, files in test_files.items():
        if name not in train_files and (shared := find_shared_images(files, known)):
            logger.warning(
                "%d of %d images of %s (DATASETS.TEST) are trained on too, e.g. %s: the model "
                "knows them",
                len(shared),
                len(files),
                name,
                _example(shared),
            )


def _tell_repeated_images(train_files: Mapping[str, set[str]]) -> None:
    """Warn of images that are in two training sets, each time with the annotations of one."""
    for first, second in combinations(train_files, 2):
        if shared := find_shared_images(train_files[first], train_files[second]):
            logger.warning(
                "%d of %d images of %s are in %s, too (both in DATASETS.TRAIN), e.g. %s: training "
                "sees them in both, each time with the annotations of one alone",
                len(shared),
                len(train_files[first]),
                first,
                second,
                _example(shared),
            )


def _example(shared: Mapping[str, str]) -> str:
    ours, theirs = min(shared.items())
    return ours if ours == theirs else f"{ours} is a copy of {theirs}"


def _check_test(
    cfg: CfgNode, name: str, own_evaluator: bool, keep: bool, test_files: dict[str, set[str]]
) -> None:
    """Check a data set, and note the files of its images in `test_files`."""
    with parsing_once():  # the data set and its ground truth come from one file
        dicts = check_test_set(cfg, name, own_evaluator=own_evaluator, keep=keep)
    check_unnamed_classes(cfg, name, dicts)
    test_files[name] = image_files(dicts)
    if keep:
        keep_loaded(name, dicts)


def _do(steps: list[tuple[str, Callable[[], object]]]) -> None:
    """Run the steps with a progress bar, which the main process shows if it has a terminal."""
    disable = None if comm.is_main_process() else True  # tqdm's None: unless on a terminal
    with tqdm(steps, leave=False, disable=disable, unit="check") as bar:
        for title, step in bar:
            bar.set_description(f"checking {visible(title, '')}", refresh=True)
            step()
