"""Linear SVMs on frozen features, one per class, as on VOC07 (VirTex, sec. 4.1)."""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import MetadataCatalog
from tabulate import tabulate
from tqdm import tqdm

from virtex_det.data.datasets import load_dataset
from virtex_det.data.datasets.found import DIFFICULT as DIFFICULT_OBJECT
from virtex_det.data.datasets.voc import (
    annotation_path,
    check_class,
    read_image_set,
    read_voc_image,
)
from virtex_det.errors import UserError
from virtex_det.escaping import visible

logger = logging.getLogger(__name__)

COSTS = (0.01, 0.1, 1.0, 10.0)
FOLDS = 3
MAX_ITERATIONS = 2000
POSITIVE_WEIGHT = 2  # images of the class count twice

# VOC's own codes; the greatest code of an image's objects is the image's label.
ABSENT, DIFFICULT, PRESENT = -1, 0, 1


class Examples(NamedTuple):
    """Images as features and labels."""

    features: np.ndarray  # (images, channels)
    labels: np.ndarray  # (images, classes): ABSENT, DIFFICULT or PRESENT


class ClassResult(NamedTuple):
    """The test results of one class's SVM."""

    average_precision: float  # 11-point
    area: float  # under the whole curve
    cost: float  # chosen by cross-validation


def read_labels(dataset_name: str) -> dict[int | str, np.ndarray]:
    """Read which classes each image of a dataset with boxes shows.

    A class is DIFFICULT in an image if all its objects there are difficult (VOC) or crowds (COCO).
    VOC's own lists per class (ImageSets/Main/CLASS_SPLIT.txt) say the same, but many subsets lack
    them.

    Returns:
        An array (classes,) for each image id.

    Raises:
        UserError: the dataset has no classes or no boxes.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("dirname") and metadata.get("split"):
        folder = Path(metadata.dirname)
        image_ids = read_image_set(folder, metadata.split)
        return {
            image_id: _labels_of(annotation_path(folder, image_id), metadata.thing_classes)
            for image_id in image_ids
        }
    dicts = load_dataset(dataset_name, boxes_alone=True)
    classes = metadata.get("thing_classes")
    if not classes or not any(entry.get("annotations") for entry in dicts):
        raise UserError(
            f"The SVM probe needs a dataset with boxes and class names, and {dataset_name} has "
            f"no {'boxes' if classes else 'class names'}.\n"
            "Set DATASETS.TRAIN and DATASETS.TEST to, for example, voc_2007_trainval and "
            "voc_2007_test."
        )
    labels = {}
    for entry in dicts:
        found = np.full(len(classes), ABSENT)
        for annotation in entry.get("annotations", ()):
            index = annotation["category_id"]
            found[index] = max(found[index], DIFFICULT if _is_difficult(annotation) else PRESENT)
        labels[entry["image_id"]] = found
    return labels


def _is_difficult(annotation: Mapping[str, Any]) -> bool:
    return bool(annotation.get("iscrowd") or annotation.get(DIFFICULT_OBJECT))


def _labels_of(annotation: Path, classes: Sequence[str]) -> np.ndarray:
    labels = np.full(len(classes), ABSENT)
    for number, entry in enumerate(read_voc_image(annotation).objects, start=1):
        check_class(annotation, number, entry.name, classes)
        index = classes.index(entry.name)
        labels[index] = max(labels[index], DIFFICULT if entry.difficult else PRESENT)
    return labels


def check_scikit_learn() -> None:
    """Refuse to go on without scikit-learn, which fits the SVMs."""
    if find_spec("sklearn") is None:
        raise UserError(
            "The SVM probe needs scikit-learn, which is not installed: pip install scikit-learn"
        )


def average_precision_11_points(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return VOC07's 11-point average precision.

    It is the mean over the recall levels 0, 0.1, ..., 1 of the best precision at that recall or
    above.

    Args:
        labels: (images,), true where the class is present; at least one is.
        scores: (images,); images of equal score enter the curve together.
    """
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, scores)
    precision, recall = (
        precision[:-1],
        recall[:-1],
    )  # the last point is a convention, not a measurement
    levels = np.linspace(0, 1, 11)[:, None]
    return float(np.where(recall >= levels - 1e-9, precision, 0).max(axis=1).mean())


def probe_classes(
    train: Examples,
    test: Examples,
    classes: Sequence[str],
    costs: Sequence[float] = COSTS,
    folds: int = FOLDS,
) -> dict[str, float]:
    """Train and test one SVM per class, on all cores.

    Images where a class is DIFFICULT are negatives in training and are left out of the test, as in
    VirTex's code.

    Args:
        train: examples for training and for the choice of the costs.
        test: examples for the test.
        classes: names, in the order of the labels' columns.
        costs: candidates; the cost with the best average precision in cross-validation is chosen,
            the first of equals.
        folds: folds of the cross-validation; fewer for a class with fewer images.

    Returns:
        In percent: "mAP", the mean 11-point AP (VOC07); "mAP-area", the mean area under the curves
        (VirTex's public code); and the 11-point "AP-CLASS". NaN for a class without training or
        test images.

    Raises:
        UserError: scikit-learn is not installed, or the costs or folds are invalid.
    """
    if folds < 2 or not costs or min(costs) <= 0:
        raise UserError(
            f"An SVM needs positive costs and at least 2 folds to choose one, not {costs} and "
            f"{folds}."
        )
    check_scikit_learn()
    from sklearn.utils.parallel import Parallel, delayed

    train_features, test_features = (
        np.asarray(part.features, dtype=np.float64) for part in (train, test)
    )
    jobs = []
    for name, shown, labels in zip(classes, train.labels.T == PRESENT, test.labels.T, strict=True):
        possible = _possible_folds(name, shown, folds)
        job = delayed(_probe_class)(train_features, shown, test_features, labels, costs, possible)
        jobs.append(job)
    done = Parallel(n_jobs=-1, return_as="generator")(jobs)
    return _summarise(classes, list(tqdm(done, total=len(jobs), desc="SVMs", unit="class")))


def _possible_folds(name: str, shown: np.ndarray, folds: int) -> int:
    """Return how many folds, up to `folds`, each have a positive and a negative image."""
    smaller = int(min(shown.sum(), (~shown).sum()))
    if smaller < folds:
        chosen = (
            f"{smaller} folds choose its cost"
            if smaller > 1
            else "its cost is the middle one, not chosen"
        )
        logger.warning(
            "%r is in %d of %d training images: %s", name, shown.sum(), len(shown), chosen
        )
    return min(folds, smaller)


def _probe_class(
    train_features: np.ndarray,
    shown: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    costs: Sequence[float],
    folds: int,
) -> ClassResult:
    counted = test_labels != DIFFICULT
    truth = test_labels[counted] == PRESENT
    if folds == 0 or not truth.any():
        return ClassResult(math.nan, math.nan, math.nan)
    from sklearn.metrics import average_precision_score

    svm, cost = _fit(train_features, shown, costs, folds)
    scores = svm.decision_function(test_features[counted])
    area = float(average_precision_score(truth, scores))
    return ClassResult(average_precision_11_points(truth, scores), area, cost)


def _fit(
    features: np.ndarray, shown: np.ndarray, costs: Sequence[float], folds: int
) -> tuple[Any, float]:
    """Fit an SVM on all images, with the cost of the best average precision in cross-validation."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import LinearSVC

    svm = LinearSVC(
        class_weight={True: POSITIVE_WEIGHT, False: 1}, max_iter=MAX_ITERATIONS, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # the protocol sets the number of iterations
        if folds < 2:
            svm.set_params(C=costs[len(costs) // 2])
            return svm.fit(features, shown), svm.C
        search = GridSearchCV(svm, {"C": list(costs)}, scoring="average_precision", cv=folds)
        search.fit(features, shown)
        return search.best_estimator_, search.best_params_["C"]


def _summarise(classes: Sequence[str], results: Sequence[ClassResult]) -> dict[str, float]:
    table = [
        [visible(name, ""), 100 * found.average_precision, found.cost]
        for name, found in zip(classes, results, strict=True)
    ]
    logger.info(
        "SVM of each class\n%s",
        tabulate(table, ["class", "AP", "cost"], floatfmt=("", ".2f", "g"), disable_numparse=[0]),
    )
    precisions, areas, _ = np.array(results).T * 100
    if np.isnan(precisions).all():
        raise UserError(
            "No class is in both the training and the test images, so there is nothing to average."
        )
    means = {"mAP": float(np.nanmean(precisions)), "mAP-area": float(np.nanmean(areas))}
    logger.info("11-point mAP %(mAP).2f, mAP by area %(mAP-area).2f", means)
    return means | {
        f"AP-{name}": float(value) for name, value in zip(classes, precisions, strict=True)
    }
