"""The main finding of a comparison in one sentence, and the starts whose pictures show it."""

import itertools
import math
from typing import Any, NamedTuple

import pandas as pd

from virtex_det.benchmark.comparison import Comparison, share
from virtex_det.benchmark.statistics import AP, LEVEL, enough_labels
from virtex_det.benchmark.tables import count, mean, p_value, title_of

_ZERO = 0.05  # AP below this is 0.0 in the tables


class Finding(NamedTuple):
    """The main finding.

    Attributes:
        sentence: with the number of seeds and the p-value.
        starts: the baseline, if there is one, and the best of the others.
    """

    sentence: str
    starts: tuple[str, ...]


def main_finding(comparison: Comparison, summary: pd.DataFrame) -> Finding:
    """Return how the best start compares with the baseline, with the most labels.

    The finding is that of the first protocol that measured AP, for box AP, or else for mask AP. A
    lead counts as more than chance if its p-value in the tables is below ``LEVEL``. That p-value is
    corrected for all tests of the metric (Holm), so it holds for the best of several starts, too.

    Args:
        comparison: what was measured.
        summary: of ``summarize``, with box and mask AP.

    Example:
        >>> main_finding(comparison, summary).sentence
        'With 25 % of the labels, captions reaches 21.9 box AP, 12.3 more than random (2 seeds).'
    """
    rows = summary.dropna(subset="mean").reset_index()
    for protocol, metric in itertools.product(comparison.protocols, AP):
        measured = rows[(rows["metric"] == metric) & (rows["protocol"] == protocol)]
        if len(measured):
            task, name = title_of(metric).split()
            result = _compare(comparison, measured, f"{task.lower()} {name}")
            where = f"Under {protocol}: " if len(comparison.protocols) > 1 else ""
            return result._replace(sentence=where + result.sentence)
    return Finding("The runs measured neither box AP nor mask AP.", ())


def _compare(comparison: Comparison, measured: pd.DataFrame, metric: str) -> Finding:
    """Return the finding of a protocol from its rows of the summary."""
    found = _with_most_labels(measured, comparison.baseline)
    ranked = list(found.sort_values("mean", ascending=False, kind="stable").itertuples())
    best, second = ranked[0], ranked[min(1, len(ranked) - 1)]
    baseline = next((row for row in ranked if row.start == comparison.baseline), None)
    beside = baseline or second
    starts = tuple(dict.fromkeys([beside.start, second.start if best is beside else best.start]))
    reached, seeds = f"{mean(best).text} {metric}", count(best.seeds, "seed")
    runner_up = f"{second.start} reaches {mean(second).text}"
    if best.mean < _ZERO:
        whose = f"from {best.start}" if len(ranked) == 1 else "from every start"
        words = f"{metric} is 0.0 {whose}: there is nothing to compare yet"
    elif len(ranked) == 1:
        words = f"{best.start} reaches {reached} ({seeds})"
    elif baseline is None:
        words = f"{best.start} reaches {reached}, the best of {len(ranked)} starts; "
        words += f"{runner_up} ({seeds})"
    elif best is baseline:
        words = f"no start does better than {best.start}, which reaches {reached}; "
        words += f"{runner_up} ({seeds})"
    else:
        words = f"{best.start} reaches {reached}{_lead(best, baseline, len(ranked))}"
        words += _efficiency(measured, best, comparison.baseline)
    labels = "all labels" if best.fraction == 1 else f"{share(best.fraction)} of the labels"
    return Finding(f"With {labels}, {words}.", starts)


def _with_most_labels(measured: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return the rows of the largest fraction that has the baseline and a rival.

    If there is none, of the largest fraction.
    """
    groups = [group for _, group in measured.groupby("fraction")]
    for group in reversed(groups):
        if len(group) > 1 and (group["start"] == baseline).any():
            return group
    return groups[-1]


def _lead(best: Any, baseline: Any, starts: int) -> str:
    """Return how far the best start leads the baseline, by the seeds that both have."""
    difference = best.difference if best.pairs else best.mean - baseline.mean
    rank = f", the best of {starts} starts and" if starts > 2 else ","
    more = "more" if difference >= 0 else "less"
    return f"{rank} {abs(difference):.1f} {more} than {baseline.start} ({_certainty(best)})"


def _certainty(best: Any) -> str:
    """Return the number of seeds behind a difference, its p-value, and whether it may be chance."""
    if not best.pairs:
        return "no seed in common, so this may be chance"
    said, is_clear = count(best.pairs, "seed"), best.pairs > 1
    if not math.isnan(best.p_holm):
        said += f", p {p_value(best.p_holm).text}"
        is_clear = best.p_holm < LEVEL
    return said if is_clear else f"{said}, so this may be chance"


def _efficiency(measured: pd.DataFrame, best: Any, baseline: str) -> str:
    """Return how few labels the best start needs to match the baseline with all of them.

    Returns:
        "" if that is unknown, or known from one seed only.
    """
    both = measured[measured["start"].isin([best.start, baseline])]
    means = measured.set_index(["start", "fraction"])["mean"]
    goal = means.get((baseline, 1.0), math.nan)
    if best.fraction < 1 or not goal > 0 or both["seeds"].min() < 2:
        return ""
    enough = enough_labels(means[best.start], goal)
    if enough == share(1.0):
        return ""
    return f"; {enough} of the labels are enough for it to match the {goal:.1f} of {baseline}"
