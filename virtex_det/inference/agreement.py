"""How far the detections of two forms of one model are apart."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from detectron2.structures import Boxes, Instances, pairwise_iou
from scipy.optimize import linear_sum_assignment
from torch import Tensor

# Two detections are of the same object where their corners are less than this apart, in pixels.
_SAME = 1.0
# A decision about two boxes may fall either way where their IoU is as near to the threshold:
# Detectron2 shifts the boxes of each class apart, which rounds them to a hundredth of a pixel.
_IOU_ROUNDING = 0.01


class Bound(NamedTuple):
    """The largest differences that still are rounding: of corners in pixels, and of chances."""

    box: float = 0.05
    score: float = 1e-3
    mask: float = 1e-2


class Rules(NamedTuple):
    """What decides which detections are kept."""

    score: float  # lowest score
    iou: float  # largest IoU of two detections of one class
    number: int  # most detections in an image


class Difference(NamedTuple):
    """What differs between two lists of detections in one image.

    Attributes:
        objects: detections that are in both.
        box: largest distance of their corners, in pixels.
        score: largest difference of their scores.
        mask: largest difference of their masks' probabilities; None without masks.
        ties: detections that are in one only because a decision could fall either way: a score at
            the threshold, or at the lowest of a full list, or an IoU at the threshold.
        unexplained: detections that are in one only, for no such reason.
    """

    objects: int
    box: float
    score: float
    mask: float | None
    ties: int
    unexplained: int

    def within(self, bound: Bound) -> bool:
        """Say whether all that differs is rounding."""
        largest = (self.box, self.score, self.mask or 0.0)
        return not self.unexplained and all(map(float.__le__, largest, bound))


class Detections(NamedTuple):
    """The detections in one image, the best first."""

    boxes: np.ndarray  # (N, 4) float32
    scores: np.ndarray  # (N,) float32
    classes: np.ndarray  # (N,) int64
    masks: np.ndarray | None  # (N, M, M) float32

    @classmethod
    def of_instances(cls, instances: Instances) -> "Detections":
        """Take the instances of a model, whose masks are "box_masks" if it has some."""
        masks = instances.box_masks.numpy() if instances.has("box_masks") else None
        boxes = instances.pred_boxes.tensor.numpy()
        return cls(boxes, instances.scores.numpy(), instances.pred_classes.numpy(), masks)

    @classmethod
    def of_outputs(cls, outputs: Sequence[Tensor], number: int) -> "Detections":
        """Take what an exported model returns for an image of the batch, without its padding."""
        boxes, scores, classes, *masks = (output[number].numpy() for output in outputs)
        real = classes >= 0
        return cls(boxes[real], scores[real], classes[real], masks[0][real] if masks else None)


def compare(expected: Detections, found: Detections, rules: Rules, bound: Bound) -> Difference:
    """Compare what two forms of a model detect in one image.

    Args:
        expected: by the model.
        found: by its other form.
        rules: of the model.
        bound: for what counts as the same score.
    """
    first, second = _pairs(expected, found)
    ties = unexplained = 0
    for one, other, paired in ((expected, found, first), (found, expected, second)):
        alone = np.setdiff1d(np.arange(len(one.scores)), paired)
        tied = sum(_is_tie(one, index, other, rules, bound) for index in alone)
        ties += tied
        unexplained += len(alone) - tied
    masks = None
    if expected.masks is not None and found.masks is not None:
        masks = _largest(expected.masks[first] - found.masks[second])
    return Difference(
        objects=len(first),
        box=_largest(expected.boxes[first] - found.boxes[second]),
        score=_largest(expected.scores[first] - found.scores[second]),
        mask=masks,
        ties=ties,
        unexplained=unexplained,
    )


def _largest(difference: np.ndarray) -> float:
    return float(np.abs(difference).max(initial=0.0))


def _pairs(expected: Detections, found: Detections) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of detections of the same objects, of each class by itself."""
    distance = np.abs(expected.boxes[:, None] - found.boxes[None]).max(axis=2, initial=0.0)
    same = expected.classes[:, None] == found.classes[None]
    apart = np.where(same & (distance < _SAME), distance, 1e6)
    first, second = linear_sum_assignment(apart)
    near = apart[first, second] < _SAME
    return first[near], second[near]


def _is_tie(one: Detections, index: int, other: Detections, rules: Rules, bound: Bound) -> bool:
    """Say whether rounding alone may have left a detection out of the other list."""
    score = one.scores[index]
    if score <= rules.score + bound.score:
        return True
    full = [each.scores for each in (one, other) if len(each.scores) >= rules.number]
    if any(score <= scores.min() + bound.score for scores in full):
        return True
    rivals = other.boxes[other.classes == one.classes[index]]
    overlaps = pairwise_iou(_boxes(one.boxes[index][None]), _boxes(rivals)).numpy()
    return bool((np.abs(overlaps - rules.iou) < _IOU_ROUNDING).any())


def _boxes(corners: np.ndarray) -> Boxes:
    return Boxes(corners)
