"""Statistics of a comparison: mean and spread over seeds, paired tests, how few labels suffice."""

import difflib
import math
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import pandas as pd
from pandas.api.typing import SeriesGroupBy

from virtex_det.benchmark.comparison import Comparison
from virtex_det.errors import UserError

TASKS = {"bbox": "Box", "segm": "Mask"}
DETAILS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
AP = ("bbox/AP", "segm/AP")
ROW = ["metric", "protocol", "start", "fraction"]


class PairedTest(NamedTuple):
    """A paired t-test: mean difference, p-value and number of pairs; NaN where undefined."""

    difference: float
    p: float
    pairs: int


def title_of(metric: str) -> str:
    """Return a metric's name for readers.

    Example:
        >>> title_of("bbox/AP50")
        'Box AP50'
    """
    task, _, name = metric.partition("/")
    return f"{TASKS.get(task, task)} {name}"


def find_metrics(comparison: Comparison, names: Iterable[str] = ()) -> list[str]:
    """Return the names of measured metrics.

    Args:
        comparison: whose records have them.
        names: such as "bbox/AP50"; by default box and mask AP, as far as they were measured.

    Raises:
        UserError: no record has a metric of that name.
    """
    known = list(comparison.frame["metric"].unique())
    names = list(dict.fromkeys(names)) or [name for name in AP if name in known]
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or known[:12]
            raise UserError(f"No record has a metric {name}. The nearest: {', '.join(nearest)}")
    return names


def summarize(comparison: Comparison, metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """Return what was measured from each start with each fraction of the labels, over seeds.

    Args:
        comparison: what was measured.
        metrics: their names; by default those that COCO and LVIS define for boxes and masks.

    Returns:
        Indexed by metric, protocol, start and fraction; a metric that no record has is left out.
        Columns: mean, deviation (of the sample), seeds (their number); seconds (of training, mean);
        recipe; best (no start has more, and there are others); those of ``test_against``. NaN for
        numbers that are not defined.
    """
    if metrics is None:
        metrics = [f"{task}/{name}" for task in TASKS for name in DETAILS]
    frame = pd.DataFrame({"metric": metrics}, dtype=object).merge(comparison.frame, on="metric")
    groups = frame.groupby(ROW, sort=False, observed=True)
    summary = spread(groups["value"])
    summary["seconds"] = groups["seconds"].agg(fmean)
    summary["recipe"] = groups["recipe"].agg(lambda recipes: " / ".join(recipes.unique()))
    summary = summary.join(test_against(comparison.baseline, frame))
    rivals = summary.groupby(["metric", "protocol", "fraction"], observed=True)["mean"]
    summary["best"] = (summary["mean"] == rivals.transform("max")) & (rivals.transform("count") > 1)
    return summary


def spread(groups: SeriesGroupBy) -> pd.DataFrame:
    """Return mean, deviation (of the sample; NaN for one value) and seeds (number) of each group.

    ``fmean`` and ``stdev`` are exact; pandas' own sums differ in the last digit by its version.
    """
    return groups.agg(mean=fmean, deviation=_deviation, seeds="size")


def test_against(baseline: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Compare each start with the baseline by the seeds that both have.

    Args:
        baseline: a start.
        frame: as of ``Comparison.frame``.

    Returns:
        Indexed as ``summarize``. Columns as of ``PairedTest``: difference, p, pairs.
    """
    same_run = ["metric", "protocol", "fraction", "seed"]
    theirs = frame[frame["start"] == baseline].set_index(same_run)["value"]
    frame = frame.join(theirs.rename("baseline"), on=same_run)
    frame["baseline"] = frame["baseline"].where(frame["start"] != baseline)
    groups = frame.groupby(ROW, sort=False, observed=True)
    tests = [paired_test(runs["value"], runs["baseline"]) for _, runs in groups]
    return pd.DataFrame(tests, groups.size().index, PairedTest._fields)


def paired_test(ours: Sequence[float], theirs: Sequence[float]) -> PairedTest:
    """Test by Student's two-sided paired t-test whether two starts differ.

    One seed draws the same labels, order of images and new layers for both starts, so paired
    differences vary less than the values. There is no p-value for fewer than two pairs, or for
    equal differences, which have no deviation. With few pairs, only large differences have a small
    p-value; a large one says nothing.

    Args:
        ours: a value per seed.
        theirs: values of the same seeds in the same order; NaN where a seed has none.

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
    p = math.nan
    # Differences that are equal up to rounding would give a meaningless p-value.
    if len(pairs) > 1 and max(differences) - min(differences) >= 1e-9:
        from scipy.stats import ttest_rel  # a second to import, and training does not need it

        p = float(ttest_rel(*zip(*pairs, strict=True)).pvalue)
    return PairedTest(fmean(differences), p, len(pairs))


def reached(means: pd.Series, baseline: str, title: str) -> str:
    """Return a sentence on how few labels each start needs to reach the baseline with all labels.

    Args:
        means: of one metric under one protocol, by start and fraction.
        baseline: the start that the others are compared with.
        title: of the metric, followed by the protocol if there are several.

    Returns:
        "" if the baseline's mean with all labels is 0 or unknown.
    """
    goal = means.get((baseline, 1.0), math.nan)
    enough = []
    for start, curve in means.groupby("start", sort=False, observed=True):
        if start != baseline:
            enough.append(f"{start}: {enough_labels(curve.droplevel('start'), goal)}")
    if not goal > 0 or not enough:
        return ""
    return (
        f"With all labels, {baseline} has {goal:.1f} {title}. Fraction of the labels at which "
        f"each other start reaches it, interpolated: {'; '.join(enough)}."
    )


def share(fraction: float) -> str:
    """Return a fraction of the labels in percent, with at most three digits.

    Example:
        >>> share(0.1), share(0.0234)
        ('10 %', '2.34 %')
    """
    return f"{100 * fraction:.3g} %"


def enough_labels(curve: pd.Series, goal: float) -> str:
    """Return the fraction at which a curve first reaches a goal, interpolated logarithmically."""
    there = curve[curve >= goal]
    if there.empty:
        return "not reached"
    many, place = there.index[0], curve.index.get_loc(there.index[0])
    if place == 0:
        return f"at most {share(many)}"
    few, low, high = curve.index[place - 1], curve.iloc[place - 1], curve[many]
    return share(few * math.exp((goal - low) / (high - low) * math.log(many / few)))


def _deviation(values: pd.Series) -> float:
    return stdev(values) if len(values) > 1 and values.notna().all() else math.nan
