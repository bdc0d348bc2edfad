"""What a comparison says in numbers: mean and spread over seeds, paired tests, and how few labels are enough."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from virtex_det.benchmark.comparison import Comparison
from virtex_det.benchmark.statistics import PairedTest, Spread, paired_test, spread
from virtex_det.errors import UserError

Metrics = Mapping[str, tuple[str, str]]  # title -> task and name, as records nest them
METRICS: Metrics = {"Box AP": ("bbox", "AP"), "Mask AP": ("segm", "AP")}
TASKS = {"bbox": "Box", "segm": "Mask"}


class Row(NamedTuple):
    """What was measured from one start with one part of the labels.

    Attributes:
        protocol: its name in the matrix.
        recipe: the identifier in the records, which shows departures.
        start: its name.
        fraction: of the labels.
        seeds: runs behind it.
        spreads: by title of the metric; None where it is not defined, as APs is without small objects.
        tests: of the difference from the baseline over the seeds that both have; None without any.
    """

    protocol: str
    recipe: str
    start: str
    fraction: float
    seeds: int
    spreads: dict[str, Spread | None]
    tests: dict[str, PairedTest | None]


class Reach(NamedTuple):
    """The part of the labels with which a start is as good as the baseline with all of them.

    Attributes:
        fraction: interpolated between two that were measured, on a logarithmic axis; None where none is enough.
        is_bound: the smallest fraction measured is more than enough already.
    """

    fraction: float | None
    is_bound: bool = False

    def __str__(self) -> str:
        if self.fraction is None:
            return "not reached"
        return f"{'at most ' if self.is_bound else ''}{share(self.fraction)}"


def find_metrics(comparison: Comparison, names: Iterable[str] = ()) -> Metrics:
    """Return metrics by title.

    Args:
        comparison: whose records have them.
        names: as in ``bbox/AP50``; by default box and mask AP, as far as they were measured.

    Raises:
        UserError: no record has one of that name.
    """
    tables = [(task, table) for record in comparison.records.values() for task, table in record.metrics.items()]
    known = dict.fromkeys(f"{task}/{name}" for task, table in tables for name in table)
    names = list(names) or [f"{task}/{name}" for task, name in METRICS.values() if f"{task}/{name}" in known]
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or list(known)[:12]
            raise UserError(f"No record has a metric {name}. The nearest: {', '.join(nearest)}")
    pairs = [(task, metric) for task, _, metric in (name.partition("/") for name in names)]
    return {f"{TASKS.get(task, task)} {metric}": (task, metric) for task, metric in pairs}


def scores(
    comparison: Comparison, start: str, protocol: str, fraction: float, metric: tuple[str, str]
) -> dict[int, float]:
    """Return a metric of the runs that differ in their seed alone, by seed; empty where it is not defined.

    Whether a metric is defined is a matter of the data set. So where one run has it and another, which found nothing,
    has not, the other's is zero.
    """
    task, name = metric
    found = {c: r.metrics.get(task, {}).get(name) for c, r in comparison.records.items() if c.protocol == protocol}
    if all(value is None for value in found.values()):
        return {}
    return {
        cell.seed: value or 0.0 for cell, value in found.items() if (cell.start, cell.fraction) == (start, fraction)
    }


def rows(comparison: Comparison, metrics: Metrics = METRICS) -> list[Row]:
    """Return a row per protocol, start and fraction of the labels, in the order of the matrix."""
    return [
        _row(comparison, metrics, start, protocol, fraction)
        for protocol in comparison.protocols
        for start in comparison.starts
        for fraction in comparison.fractions
        if comparison.runs(start, protocol, fraction)
    ]


def reaches(comparison: Comparison, protocol: str, metric: tuple[str, str]) -> tuple[float, dict[str, Reach]] | None:
    """Say with which part of the labels each start is as good as the baseline with all of them.

    Returns:
        What the baseline has with all labels, and by start where it is reached; None where that is 0 or not known.
    """
    target = scores(comparison, comparison.baseline, protocol, 1.0, metric)
    if not target:
        return None
    goal = spread(target.values()).mean
    if goal <= 0:
        return None
    others = [start for start in comparison.starts if start != comparison.baseline]
    return goal, {start: _reach(_curve(comparison, start, protocol, metric), goal) for start in others}


def reached(comparison: Comparison, protocol: str, title: str, metric: tuple[str, str]) -> str:
    """Say in a sentence what ``reaches`` returns; "" where there is nothing to say.

    Args:
        comparison: what was measured.
        protocol: by its name in the matrix.
        title: of the metric, such as "Box AP".
        metric: task and name.
    """
    goal, by_start = reaches(comparison, protocol, metric) or (0.0, {})
    if not by_start:
        return ""
    where = f" under {protocol}" if len(comparison.protocols) > 1 else ""
    enough = "; ".join(f"{start}: {reach}" for start, reach in by_start.items())
    return (
        f"With all labels, {comparison.baseline} has {goal:.1f} {title}{where}. Part of the labels with which the "
        f"others have as much, interpolated: {enough}."
    )


def share(fraction: float) -> str:
    """Return a part of the labels in words: three digits at most.

    Example:
        >>> share(0.1), share(0.0234)
        ('10 %', '2.34 %')
    """
    return f"{100 * fraction:.3g} %"


def _row(comparison: Comparison, metrics: Metrics, start: str, protocol: str, fraction: float) -> Row:
    runs = comparison.runs(start, protocol, fraction)
    ours = {title: scores(comparison, start, protocol, fraction, metric) for title, metric in metrics.items()}
    theirs = {
        title: scores(comparison, comparison.baseline, protocol, fraction, metric) for title, metric in metrics.items()
    }
    return Row(
        protocol=protocol,
        recipe=" / ".join(dict.fromkeys(record.protocol for record in runs.values())),
        start=start,
        fraction=fraction,
        seeds=len(runs),
        spreads={title: spread(found.values()) if found else None for title, found in ours.items()},
        tests={title: None if start == comparison.baseline else _test(ours[title], theirs[title]) for title in metrics},
    )


def _test(ours: Mapping[int, float], theirs: Mapping[int, float]) -> PairedTest | None:
    seeds = sorted(ours.keys() & theirs.keys())
    return paired_test([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]) if seeds else None


def _curve(comparison: Comparison, start: str, protocol: str, metric: tuple[str, str]) -> list[tuple[float, float]]:
    found = {fraction: scores(comparison, start, protocol, fraction, metric) for fraction in comparison.fractions}
    return [(fraction, spread(values.values()).mean) for fraction, values in found.items() if values]


def _reach(curve: Sequence[tuple[float, float]], goal: float) -> Reach:
    if curve and curve[0][1] >= goal:
        return Reach(curve[0][0], is_bound=True)
    for (few, low), (many, high) in zip(curve, curve[1:], strict=False):
        if high >= goal:
            return Reach(few * math.exp((goal - low) / (high - low) * math.log(many / few)))
    return Reach(None)
