"""Statistics of a comparison: mean and spread over seeds, paired tests, how few labels suffice."""

import difflib
import math
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.api.typing import DataFrameGroupBy, SeriesGroupBy

from virtex_det.benchmark.comparison import Comparison, share
from virtex_det.errors import UserError

TASKS = {"bbox": "Box", "segm": "Mask"}
DETAILS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
AP = ("bbox/AP", "segm/AP")
MAIN = (*AP, "svm/mAP")  # shown where no metrics are named
ROW = ["metric", "protocol", "start", "fraction"]


_OF_ONE_TABLE = ("metric", "protocol")  # levels that are equal in all tests of a table
LEVEL, POWER = 0.05, 0.8
_QUANTILES = 2000


class PairedTest(NamedTuple):
    """A two-sided paired t-test; NaN where undefined.

    Attributes:
        difference: mean of the paired differences.
        p: p-value, not corrected for other tests.
        pairs: their number.
        low: lower end of the 95 % confidence interval of the difference.
        high: its upper end.
        difference_sd: sample standard deviation of the paired differences.
    """

    difference: float
    p: float
    pairs: int
    low: float = math.nan
    high: float = math.nan
    difference_sd: float = math.nan


def find_metrics(comparison: Comparison, names: Iterable[str] = ()) -> list[str]:
    """Return the names of measured metrics.

    Args:
        comparison: whose records have them.
        names: such as "bbox/AP50"; by default those of ``MAIN`` that were measured.

    Raises:
        UserError: no record has a metric of that name.
    """
    known = comparison.metrics
    names = list(dict.fromkeys(names)) or [name for name in MAIN if name in known]
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
        recipe; best (no start has more, and there are others, with as many seeds); those of
        ``test_against``; p_holm (corrected for all tests of the metric under the protocol); tests
        (their number). NaN for numbers that are not defined.
    """
    if metrics is None:
        metrics = [f"{task}/{name}" for task in TASKS for name in DETAILS]
    return _summary(_of_metrics(comparison, metrics), comparison.baseline, _OF_ONE_TABLE)


def _summary(frame: pd.DataFrame, baseline: str, family: Sequence[str]) -> pd.DataFrame:
    """Return what ``summarize`` returns, with p corrected for tests with an equal family."""
    groups = frame.groupby(ROW, sort=False, observed=True)
    summary = spread(groups["value"])
    summary["seconds"] = groups["seconds"].agg(fmean)
    summary["recipe"] = _recipes(groups)
    summary = _corrected(summary.join(test_against(baseline, frame)), family)
    rivals = summary.groupby(["metric", "protocol", "fraction"], observed=True)
    means, has_equal_seeds = rivals["mean"], rivals["seeds"].transform("nunique") == 1
    is_first = (summary["mean"] == means.transform("max")) & (means.transform("count") > 1)
    summary["best"] = is_first & has_equal_seeds
    return summary


def compare_pairs(comparison: Comparison, metrics: Sequence[str]) -> pd.DataFrame:
    """Return the paired tests of the pairs of starts that the matrix names.

    Args:
        comparison: what was measured.
        metrics: their names.

    Returns:
        Indexed as ``summarize``, with "ours - theirs" as the start. Columns: recipe; those of
        ``test_against``; p_holm (corrected for all tests of pairs by the metric under the
        protocol); tests (their number).
    """
    return _pairs(_of_metrics(comparison, metrics), comparison.pairs, _OF_ONE_TABLE)


def _pairs(
    frame: pd.DataFrame, pairs: Iterable[tuple[str, str]], family: Sequence[str]
) -> pd.DataFrame:
    """Return what ``compare_pairs`` returns, with p corrected for tests with an equal family."""
    recipes = _recipes(frame.groupby(ROW, sort=False, observed=True))
    tables = []
    for ours, theirs in pairs:
        both = frame[frame["start"].isin([ours, theirs])]
        tests = test_against(theirs, both).drop(index=theirs, level="start", errors="ignore")
        table = tests.join(recipes).reset_index()
        tables.append(table.assign(start=f"{ours} - {theirs}"))
    if not tables:
        return pd.DataFrame(columns=[*ROW, *PairedTest._fields, "recipe"]).set_index(ROW)
    return _corrected(pd.concat(tables).set_index(ROW), family)


class Overview(NamedTuple):
    """The main metric of each protocol with all labels.

    Attributes:
        metrics: by protocol.
        summary: as of ``summarize``, with p corrected for the tests of all protocols.
        pairs: as of ``compare_pairs``, likewise.
    """

    metrics: dict[str, str]
    summary: pd.DataFrame
    pairs: pd.DataFrame


def overview(comparison: Comparison, metrics: Sequence[str]) -> Overview | None:
    """Return the first metric that each protocol measured, with all labels.

    Args:
        comparison: what was measured.
        metrics: to choose from; those of ``MAIN`` for a protocol that measured none of them.

    Returns:
        None if fewer than two protocols have runs with all labels.
    """
    frame = comparison.frame
    frame = frame[frame["fraction"] == 1]
    chosen: dict[str, str] = {}
    for protocol in comparison.protocols:
        known = set(frame["metric"][(frame["protocol"] == protocol) & frame["value"].notna()])
        if found := [metric for metric in (*metrics, *MAIN) if metric in known]:
            chosen[protocol] = found[0]
    if len(chosen) < 2:
        return None
    rows = frame[frame["metric"] == frame["protocol"].astype(object).map(chosen)]
    family = ["fraction"]  # one value: the tests stand in one table
    return Overview(
        chosen,
        _summary(rows, comparison.baseline, family),
        _pairs(rows, comparison.pairs, family),
    )


def _of_metrics(comparison: Comparison, metrics: Sequence[str]) -> pd.DataFrame:
    """Return the rows of some metrics, in their order."""
    names = pd.DataFrame({"metric": metrics}, dtype=object)
    return names.merge(comparison.frame, on="metric")


def _recipes(groups: DataFrameGroupBy) -> pd.Series:
    """Return the protocol ids of the records of each group."""
    return groups["recipe"].agg(lambda recipes: " / ".join(recipes.unique()))


def _corrected(tests: pd.DataFrame, family: Sequence[str]) -> pd.DataFrame:
    """Add p_holm, corrected for all tests with equal values of the levels, and their number."""
    p = tests.groupby(list(family), sort=False, observed=True)["p"]
    return tests.assign(p_holm=p.transform(holm), tests=p.transform("count"))


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
        Indexed as ``summarize``. Columns as of ``PairedTest``.
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
        PairedTest(difference=2.0, p=nan, pairs=2, low=nan, high=nan, difference_sd=0.0)
    """
    pairs = [pair for pair in zip(ours, theirs, strict=True) if not math.isnan(pair[1])]
    if not pairs:
        return PairedTest(math.nan, math.nan, 0)
    differences = [mine - other for mine, other in pairs]
    difference, number = fmean(differences), len(pairs)
    if number < 2:
        return PairedTest(difference, math.nan, number)
    # Differences that are equal up to rounding would give a meaningless p-value.
    if max(differences) - min(differences) < 1e-9:
        return PairedTest(difference, math.nan, number, difference_sd=0.0)
    from scipy.stats import ttest_rel  # a second to import, and training does not need it

    test = ttest_rel(*zip(*pairs, strict=True))
    low, high = map(float, test.confidence_interval(1 - LEVEL))
    return PairedTest(difference, float(test.pvalue), number, low, high, stdev(differences))


def holm(p: pd.Series) -> pd.Series:
    """Return p-values corrected for their number (Holm 1979, A simple sequentially rejective test).

    Those below a level hold together: the probability that any of them is wrong is below it.

    Args:
        p: p-values; NaN, where there was no test, stays NaN.
    """
    ordered = p.dropna().sort_values()
    remaining = range(len(ordered), 0, -1)
    return (ordered * remaining).cummax().clip(upper=1.0).reindex(p.index)


def detectable_difference(tests: pd.DataFrame, corrected_for: int) -> float:
    """Return the smallest true difference that a table of paired tests would show.

    That is, with a probability of 80 % at a level of 5 % in Holm's strictest step: 5 % divided by
    the number of tests that p is corrected for. Let s be the pooled standard deviation of the
    paired differences, n the largest number of pairs, and c the critical value of Student's t with
    n - 1 degrees of freedom. The test statistic of a true difference d is noncentral t with
    noncentrality d sqrt(n) / s, and d is such that it exceeds c, either way, with that probability.

    Args:
        tests: with columns of ``PairedTest``.
        corrected_for: number of tests, these and others.

    Returns:
        NaN if there is no test with a p-value.
    """
    tests = tests[tests["p"].notna()].astype({"pairs": float})
    if tests.empty:
        return math.nan
    from scipy.optimize import brentq
    from scipy.stats import chi2, norm, t

    degrees = tests["pairs"] - 1
    pooled = (degrees * tests["difference_sd"] ** 2).sum() / degrees.sum()
    most = degrees.max()
    critical = t.isf(LEVEL / corrected_for / 2, most)
    # The sample deviation over the true one, at even quantiles (scipy's nct is NaN far out).
    quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    limits = critical * np.sqrt(chi2.ppf(quantiles, most) / most)

    def missing_power(shift: float) -> float:
        return POWER - float((norm.sf(limits - shift) + norm.cdf(-limits - shift)).mean())

    shift = brentq(missing_power, 0, limits[-1] + 10)
    return float(shift * math.sqrt(pooled / (most + 1)))


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
