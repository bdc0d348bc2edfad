"""Linear SVMs on frozen features: how well each class of VOC07 can be told from the rest (VirTex, sec. 4.1)."""

import logging
import math
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import MetadataCatalog
from tabulate import tabulate
from tqdm import tqdm

from virtex_det.data.datasets.voc import annotation_path, check_class, read_image_set, read_voc_image
from virtex_det.errors import UserError
from virtex_det.escaping import visible

logger = logging.getLogger(__name__)

COSTS = (0.01, 0.1, 1.0, 10.0)
FOLDS = 3
MAX_ITERATIONS = 2000
POSITIVE_WEIGHT = 2  # images of the class count twice

# VOC's own codes, ordered so that of several objects the greatest decides.
ABSENT, DIFFICULT, PRESENT = -1, 0, 1


class Examples(NamedTuple):
    """Images as an SVM sees them."""

    features: np.ndarray  # (images, channels)
    labels: np.ndarray  # (images, classes): ABSENT, DIFFICULT or PRESENT


class ClassResult(NamedTuple):
    """What one class's SVM reached on the test images."""

    average_precision: float  # of 11 points
    area: float  # under the whole curve
    cost: float  # chosen by cross-validation


def read_voc_labels(dataset_name: str) -> dict[str, np.ndarray]:
    """Read which classes each image of a VOC data set shows.

    A class all of whose objects in an image are difficult is DIFFICULT there, as in VOC's own lists per class
    (ImageSets/Main/CLASS_SPLIT.txt), which subsets made by others often lack.

    Returns:
        By image id an array (classes,).

    Raises:
        UserError: the data set is not laid out as VOC is.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if not metadata.get("dirname") or not metadata.get("split"):
        raise UserError(
            f"The SVM probe reads Pascal VOC's annotations, and data set {dataset_name} has none.\n"
            "Set DATASETS.TRAIN and DATASETS.TEST to voc_2007_trainval and voc_2007_test."
        )
    folder = Path(metadata.dirname)
    image_ids = read_image_set(folder, metadata.split)
    return {image_id: _labels_of(annotation_path(folder, image_id), metadata.thing_classes) for image_id in image_ids}


def _labels_of(annotation: Path, classes: Sequence[str]) -> np.ndarray:
    labels = np.full(len(classes), ABSENT)
    for number, entry in enumerate(read_voc_image(annotation).objects, start=1):
        check_class(annotation, number, entry.name, classes)
        index = classes.index(entry.name)
        labels[index] = max(labels[index], DIFFICULT if entry.difficult else PRESENT)
    return labels


def average_precision_11_points(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return VOC07's average precision: the mean, over recalls of 0, 0.1 to 1, of the best precision from there on.

    Args:
        labels: (images,) true where the class is shown; at least one is.
        scores: (images,); images of equal score come in together.
    """
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, scores)
    precision, recall = precision[:-1], recall[:-1]  # the last point is a convention, not a measurement
    levels = np.linspace(0, 1, 11)[:, None]
    return float(np.where(recall >= levels - 1e-9, precision, 0).max(axis=1).mean())


def probe_classes(
    train: Examples, test: Examples, classes: Sequence[str], costs: Sequence[float] = COSTS, folds: int = FOLDS
) -> dict[str, float]:
    """Train and test one SVM per class, on all cores.

    Images where a class is DIFFICULT are negatives in its training, and left out of its test, as VirTex's code does it.

    Args:
        train: the SVMs, and the choice of their costs, see nothing else.
        test: what they are tested on.
        classes: names, in the order of the labels' columns.
        costs: the candidates; the best average precision in cross-validation decides, the first of equals.
        folds: of the cross-validation; fewer for a class of fewer images.

    Returns:
        In percent: "mAP" of 11 points (VOC07), "mAP-area" under the whole curves (what VirTex's public code computes),
        and the 11-point "AP-CLASS"; NaN for a class that the training or the test images do not show.

    Raises:
        UserError: scikit-learn is not here, or the costs and folds are not what can be tried.
    """
    if folds < 2 or not costs or min(costs) <= 0:
        raise UserError(f"An SVM needs costs above 0 and at least 2 folds to choose one, not {costs} and {folds}.")
    if find_spec("sklearn") is None:
        raise UserError("The SVM probe needs scikit-learn, which is not here: pip install scikit-learn")
    from sklearn.utils.parallel import Parallel, delayed

    train_features, test_features = (np.asarray(part.features, dtype=np.float64) for part in (train, test))
    jobs = [
        delayed(_probe_class)(train_features, shown, test_features, labels, costs, _possible_folds(name, shown, folds))
        for name, shown, labels in zip(classes, train.labels.T == PRESENT, test.labels.T, strict=True)
    ]
    done = Parallel(n_jobs=-1, return_as="generator")(jobs)
    return _summarise(classes, list(tqdm(done, total=len(jobs), desc="SVMs", unit="class")))


def _possible_folds(name: str, shown: np.ndarray, folds: int) -> int:
    """Return how many folds can each have an image of the class and one of the others."""
    smaller = int(min(shown.sum(), (~shown).sum()))
    if smaller < folds:
        chosen = f"{smaller} folds choose its cost" if smaller > 1 else "its cost is the middle one, not chosen"
        logger.warning("Of %r there are %d training images of %d: %s", name, shown.sum(), len(shown), chosen)
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


def _fit(features: np.ndarray, shown: np.ndarray, costs: Sequence[float], folds: int) -> tuple[Any, float]:
    """Fit an SVM on all images, at the cost of the best average precision in cross-validation."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import LinearSVC

    svm = LinearSVC(class_weight={True: POSITIVE_WEIGHT, False: 1}, max_iter=MAX_ITERATIONS, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the protocol says when to stop
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
        raise UserError("No class is shown by both training and test images, so there is nothing to average.")
    means = {"mAP": float(np.nanmean(precisions)), "mAP-area": float(np.nanmean(areas))}
    logger.info("mAP of 11 points %(mAP).2f, of the areas %(mAP-area).2f", means)
    return means | {f"AP-{name}": float(value) for name, value in zip(classes, precisions, strict=True)}
