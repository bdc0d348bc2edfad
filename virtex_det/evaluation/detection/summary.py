"""COCO's and LVIS's numbers as means over the tables of precision and recall; differences between two runs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

AREAS = {"s": 1, "m": 2, "l": 3}
_FREQUENCIES = ("r", "c", "f")


class Tables(NamedTuple):
    """Precision and recall of one evaluation; -1 where there is nothing to be found."""

    precision: np.ndarray  # shape: (IoU thresholds, recall levels, categories, areas, limits)
    recall: np.ndarray  # shape: (IoU thresholds, categories, areas, limits)
    limits: Sequence[int]  # detections of an image that count

    def ap(self, limit: int, area: int = 0, categories: Sequence[int] | slice = slice(None)) -> float:
        """Return AP over all IoU thresholds."""
        return percent(self.precision[:, :, categories, area, self.limits.index(limit)])

    def ap_at(self, limit: int, iou: float) -> float:
        """Return AP at one of the thresholds .50, .55, ... .95."""
        return percent(self.precision[round((iou - 0.5) / 0.05), :, :, 0, self.limits.index(limit)])

    def ar(self, limit: int, area: int = 0) -> float:
        """Return average recall over all IoU thresholds."""
        return percent(self.recall[:, :, area, self.limits.index(limit)])


def percent(values: np.ndarray) -> float:
    """Return the mean of what is not -1, in percent; NaN of nothing."""
    values = values[values > -1]
    return 100 * float(values.mean()) if values.size else math.nan


def precision_numbers(tables: Tables, limit: int) -> dict[str, float]:
    """Return AP, AP50, AP75 and AP by area."""
    numbers = {"AP": tables.ap(limit), "AP50": tables.ap_at(limit, 0.5), "AP75": tables.ap_at(limit, 0.75)}
    return numbers | {f"AP{name}": tables.ap(limit, area) for name, area in AREAS.items()}


def coco_numbers(tables: Tables, limit: int) -> dict[str, float]:
    """Return COCO's twelve numbers."""
    recalls = {f"AR{number}": tables.ar(number) for number in sorted({1, 10, limit})}
    by_area = {f"AR{name}": tables.ar(limit, area) for name, area in AREAS.items()}
    return precision_numbers(tables, limit) | recalls | by_area


def lvis_numbers(tables: Tables, limit: int, frequencies: Sequence[str]) -> dict[str, float]:
    """Return LVIS's thirteen numbers.

    Args:
        tables: of an evaluation with that limit.
        limit: detections of an image that count.
        frequencies: "r", "c" or "f" for each category.
    """
    members = {
        letter: [place for place, frequency in enumerate(frequencies) if frequency == letter] for letter in _FREQUENCIES
    }
    rarity = {f"AP{letter}": tables.ap(limit, categories=places) for letter, places in members.items()}
    recalls = {f"AR@{limit}": tables.ar(limit)}
    recalls |= {f"AR{name}@{limit}": tables.ar(limit, area) for name, area in AREAS.items()}
    return precision_numbers(tables, limit) | rarity | recalls


def category_numbers(tables: Tables, limit: int, names: Sequence[str]) -> dict[str, float]:
    """Return ``AP-NAME`` of each category."""
    return {f"AP-{name}": tables.ap(limit, categories=[place]) for place, name in enumerate(names)}


class Difference(NamedTuple):
    """A number in two runs."""

    name: str
    ours: float
    theirs: float

    @property
    def change(self) -> float:
        """Ours less theirs; NaN where one of them has no number."""
        return self.ours - self.theirs


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Difference]:
    """Compare the numbers that two results of one task share.

    Args:
        ours: numbers by name, as ``result()`` gives them.
        theirs: those of the run to compare with.

    Returns:
        Totals first, in their order; then categories, the largest change for the better first and NaN last.
    """
    rows = [Difference(name, ours[name], theirs[name]) for name in ours if name in theirs]
    totals = [row for row in rows if not row.name.startswith("AP-")]
    categories = [row for row in rows if row.name.startswith("AP-")]
    return totals + sorted(categories, key=lambda row: (math.isnan(row.change), -row.change, row.name))
