"""Records as one tidy table, and what it says: mean and spread over seeds, tests, how few labels are enough."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import pandas as pd
from pandas.api.typing import SeriesGroupBy

from virtex_det.benchmark.comparison import Cell, Comparison
from virtex_det.errors import UserError

# Names may hold half surrogates, which pyarrow, where it is installed, cannot store.
pd.set_option("mode.string_storage", "python")

Metrics = Mapping[str, tuple[str, str]]  # title -> task and metric, as records nest them
METRICS: Metrics = {"Box AP": ("bbox", "AP"), "Mask AP": ("segm", "AP")}
TASKS = {"bbox": "Box", "segm": "Mask"}
ROW = ["title", "protocol", "start", "fraction"]


class PairedTest(NamedTuple):
    """Mean difference of paired values and how likely one as great is by chance; NaN where that cannot be told."""

    difference: float
    p: float
    pairs: int


def tidy(comparison: Comparison) -> pd.DataFrame:
    """Return a row per run and metric, by protocol and start in the order of the matrix, then by fraction.

    Whether a metric is defined is a matter of the data set. So where one run of a protocol has it
    and another one has not, because it found nothing, the other's value is 0.

    Returns:
        Columns start, protocol, fraction, seed; recipe (the protocol's identifier in the record),
        dataset (evaluated on), seconds (of training; NaN where not known); task, metric, value (in
        percent; NaN where no run of the protocol has it).
    """
    tables = [record.metrics for record in comparison.records.values()]
    names = dict.fromkeys(
        (task, name) for nested in tables for task in nested for name in nested[task]
    )
    rows = []
    for cell, record in comparison.records.items():
        for task, name in names:
            value = record.metrics.get(task, {}).get(name)
            rows.append(
                [*cell, record.protocol, record.dataset, record.training_seconds, task, name, value]
            )
    columns = [*Cell._fields, "recipe", "dataset", "seconds", "task", "metric", "value"]
    frame = pd.DataFrame(rows, columns=columns, dtype=object).astype(
        {"seconds": float, "value": float}
    )
    for column, order in {"protocol": comparison.protocols, "start": comparison.starts}.items():
        frame[column] = pd.Categorical(frame[column], order, ordered=True)
    frame = frame.sort_values(["protocol", "start", "fraction", "seed"])
    found = frame.groupby(["protocol", "task", "metric"], observed=True)["value"].transform("count")
    frame["value"] = frame["value"].fillna(0.0).where(found > 0)
    return frame


def tasks_of(comparison: Comparison) -> list[str]:
    """Return the tasks that were measured, "bbox" before "segm"."""
    return [
        task
        for task in TASKS
        if any(task in record.metrics for record in comparison.records.values())
    ]


def find_metrics(comparison: Comparison, names: Iterable[str] = ()) -> Metrics:
    """Return metrics by title.

    Args:
        comparison: whose records have them.
        names: as in ``bbox/AP50``; by default box and mask AP, as far as they were measured.

    Raises:
        UserError: no record has one of that name.
    """
    tables = [record.metrics for record in comparison.records.values()]
    known = dict.fromkeys(
        f"{task}/{name}" for nested in tables for task in nested for name in nested[task]
    )
    names = list(names) or [name for name in map("/".join, METRICS.values()) if name in known]
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or list(known)[:12]
            raise UserError(f"No record has a metric {name}. The nearest: {', '.join(nearest)}")
    pairs = [name.partition("/")[::2] for name in names]
    return {f"{TASKS.get(task, task)} {metric}": (task, metric) for task, metric in pairs}


def summarize(comparison: Comparison, metrics: Metrics = METRICS) -> pd.DataFrame:
    """Return what was measured from each start with each fraction of the labels, over seeds.

    Returns:
        Indexed by title of the metric, protocol, start and fraction; NaN where nothing is defined.
        Columns: mean, deviation (of the sample), seeds (how many); seconds (of training, mean);
        recipe; difference (from the baseline), p, pairs (of seeds that both have); best (no start
        has more, and there are others).
    """
    wanted = pd.DataFrame(
        [(title, *names) for title, names in metrics.items()], columns=["title", "task", "metric"]
    )
    frame = wanted.merge(tidy(comparison), on=["task", "metric"])
    same_run = ["title", "protocol", "fraction", "seed"]
    baseline = frame[frame["start"] == comparison.baseline].set_index(same_run)["value"]
    frame = frame.join(baseline.rename("baseline"), on=same_run)
    frame["baseline"] = frame["baseline"].where(frame["start"] != comparison.baseline)
    groups = frame.groupby(ROW, sort=False, observed=True)
    summary = spread(groups["value"])
    summary["seconds"] = groups["seconds"].agg(fmean)
    summary["recipe"] = groups["recipe"].agg(lambda recipes: " / ".join(recipes.unique()))
    tests = [paired_test(runs["value"], runs["baseline"]) for _, runs in groups]
    summary = summary.join(pd.DataFrame(tests, summary.index))
    rivals = summary.groupby(["title", "protocol", "fraction"], observed=True)["mean"]
    summary["best"] = (summary["mean"] == rivals.transform("max")) & (rivals.transform("count") > 1)
    return summary


def spread(groups: SeriesGroupBy) -> pd.DataFrame:
    """Return mean, deviation (of the sample; NaN for one value) and number of seeds of each group of values."""
    return groups.agg(mean=fmean, deviation=_deviation, seeds="size")


def paired_test(ours: Sequence[float], theirs: Sequence[float]) -> PairedTest:
    """Test with Student's t whether two starts differ, each pair of values measured with one seed.

    The same seed draws the same labels, order of images and new layers for both, so the pairs differ less than the
    values. A deviation needs two pairs, and differences that are all the same have none: then there is no p-value. Few
    pairs find only great differences, and say nothing of those they do not find.

    Args:
        ours: a value per seed.
        theirs: the values of the same seeds, in the same order; NaN where that seed has none.

    Raises:
        ValueError: the numbers of values differ.

    Example:
        >>> paired_test([12.0, 13.0], [10.0, 11.0])
        PairedTest(difference=2.0, p=nan, pairs=2)
    """
    pairs = [pair for pair in zip(ours, theirs, strict=True) if not math.isnan(pair[1])]
    if not pairs:
        return PairedTest(math.nan, math.nan, 0)
    differences = [mine - other for mine, other in pairs]
    # Differences equal but for rounding would give a p-value of almost 0 or of anything.
    if len(pairs) < 2 or max(differences) - min(differences) < 1e-9:
        return PairedTest(fmean(differences), math.nan, len(pairs))
    from scipy.stats import ttest_rel  # a second to import, and no training needs it

    return PairedTest(
        fmean(differences), float(ttest_rel(*zip(*pairs, strict=True)).pvalue), len(pairs)
    )


def reached(means: pd.Series, baseline: str, title: str) -> str:
    """Say with which fraction of the labels each start is as good as the baseline with all of them.

    Args:
        means: of one metric under one protocol, by start and fraction.
        baseline: the start that the others are compared with.
        title: of the metric, and of the protocol where there are several.

    Returns:
        A sentence; "" where the baseline's value with all labels is 0 or not known.
    """
    goal = means.get((baseline, 1.0), math.nan)
    others = [
        (start, curve)
        for start, curve in means.groupby("start", sort=False, observed=True)
        if start != baseline
    ]
    if not goal > 0 or not others:
        return ""
    enough = "; ".join(
        f"{start}: {enough_labels(curve.droplevel('start'), goal)}" for start, curve in others
    )
    return (
        f"With all labels, {baseline} has {goal:.1f} {title}. "
        f"Fraction of the labels at which each other start reaches it, interpolated: {enough}."
    )


def share(fraction: float) -> str:
    """Return a fraction of the labels in words: three digits at most.

    Example:
        >>> share(0.1), share(0.0234)
        ('10 %', '2.34 %')
    """
    return f"{100 * fraction:.3g} %"


def _deviation(values: pd.Series) -> float:
    """Return the deviation of a sample, exact as ``fmean`` is: pandas' own depends on its version in the last digit."""
    return stdev(values) if len(values) > 1 and values.notna().all() else math.nan


def enough_labels(curve: pd.Series, goal: float) -> str:
    """Return the fraction at which a curve first reaches a goal, interpolated on a logarithmic axis."""
    there = curve[curve >= goal]
    if there.empty:
        return "not reached"
    many, place = there.index[0], curve.index.get_loc(there.index[0])
    if place == 0:
        return f"at most {share(many)}"
    few, low, high = curve.index[place - 1], curve.iloc[place - 1], curve[many]
    return share(few * math.exp((goal - low) / (high - low) * math.log(many / few)))
