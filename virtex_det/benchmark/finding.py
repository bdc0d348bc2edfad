"""What a comparison finds, in one sentence, and the starts whose pictures show it."""

import math
from typing import Any, NamedTuple

import pandas as pd

from virtex_det.benchmark.comparison import Comparison
from virtex_det.benchmark.statistics import TASKS, enough_labels, share, summarize
from virtex_det.benchmark.tables import count, mean

CHANCE = 0.05  # a difference with a p-value from here on may be chance

_ZERO = 0.05  # AP below this is 0.0 in the tables


class Finding(NamedTuple):
    """The finding.

    Attributes:
        sentence: in plain words, with the number of seeds and the p-value.
        starts: the baseline, where there is one, and the best of the others.
    """

    sentence: str
    starts: tuple[str, ...]


def main_finding(comparison: Comparison) -> Finding:
    """Return what a comparison finds: the best start beside the baseline, with the most labels.

    It is of the first protocol, and of box AP, or of mask AP where there is no other. The best of
    several starts leads by chance more easily than a single one does; so a lead counts as more than
    chance where its p-value times the number of rivals is below ``CHANCE`` (Bonferroni).

    Example:
        >>> main_finding(comparison).sentence
        'With 25 % of the labels, captions reaches 21.9 ± 1.0 box AP, 12.3 more than random (2 seeds, p 0.04).'
    """
    protocol = comparison.protocols[0]
    for task, title in TASKS.items():
        summary = summarize(comparison, {"AP": (task, "AP")}).dropna(subset="mean").reset_index()
        measured = summary[summary["protocol"] == protocol]
        if len(measured):
            result = _compare(comparison, measured, f"{title.lower()} AP")
            where = f"Under {protocol}: " if len(comparison.protocols) > 1 else ""
            return result._replace(sentence=where + result.sentence)
    return Finding("The runs measured neither box AP nor mask AP.", ())


def _compare(comparison: Comparison, measured: pd.DataFrame, metric: str) -> Finding:
    """Return the finding of a protocol; its rows are as of ``summarize``, with their index as columns."""
    found = _with_most_labels(measured, comparison.baseline)
    ranked = list(found.sort_values("mean", ascending=False, kind="stable").itertuples())
    best, second = ranked[0], ranked[min(1, len(ranked) - 1)]
    baseline = next((row for row in ranked if row.start == comparison.baseline), None)
    beside = baseline or second
    starts = tuple(dict.fromkeys([beside.start, second.start if best is beside else best.start]))
    reached = f"{mean(best).text} {metric}"
    if best.mean < _ZERO:
        whose = f"from {best.start}" if len(ranked) == 1 else "from every start"
        words = f"{metric} is 0.0 {whose}: there is nothing to compare yet"
    elif len(ranked) == 1:
        words = f"{best.start} reaches {reached} ({_seeds(best.seeds)})"
    elif baseline is None:
        words = (
            f"{best.start} reaches {reached}, the best of {len(ranked)} starts; "
            f"{second.start} reaches {mean(second).text} ({_seeds(best.seeds)})"
        )
    elif best is baseline:
        words = (
            f"no start does better than {best.start}, which reaches {reached}; "
            f"{second.start} reaches {mean(second).text} ({_seeds(best.seeds)})"
        )
    else:
        words = f"{best.start} reaches {reached}{_lead(best, baseline, len(ranked))}"
        words += _efficiency(measured, best, comparison.baseline)
    labels = "all labels" if best.fraction == 1 else f"{share(best.fraction)} of the labels"
    return Finding(f"With {labels}, {words}.", starts)


def _with_most_labels(measured: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return the rows of the largest fraction with the baseline and a rival; without such, of the largest."""
    groups = [group for _, group in measured.groupby("fraction")]
    for group in reversed(groups):
        if len(group) > 1 and (group["start"] == baseline).any():
            return group
    return groups[-1]


def _lead(best: Any, baseline: Any, starts: int) -> str:
    """Say how far the best start is before the baseline, by the seeds that both have."""
    difference = best.difference if best.pairs else best.mean - baseline.mean
    rank = f", the best of {starts} starts and" if starts > 2 else ","
    more = "more" if difference >= 0 else "less"
    return f"{rank} {abs(difference):.1f} {more} than {baseline.start} ({_certainty(best, starts - 1)})"


def _certainty(best: Any, rivals: int) -> str:
    """Say how many seeds a difference has behind it, and whether it may be chance."""
    if not best.pairs:
        return "no seed in common, so this may be chance"
    said = _seeds(best.pairs)
    if not math.isnan(best.p):
        said += f", p {best.p:.2g}" if best.p >= 0.001 else ", p < 0.001"
    is_clear = best.pairs > 1 and (math.isnan(best.p) or best.p * rivals < CHANCE)
    return said if is_clear else f"{said}, so this may be chance"


def _efficiency(measured: pd.DataFrame, best: Any, baseline: str) -> str:
    """Say how few labels give the best start what the baseline has with all; "" where that is not known."""
    means = measured.set_index(["start", "fraction"])["mean"]
    goal = means.get((baseline, 1.0), math.nan)
    if best.fraction < 1 or not goal > 0:
        return ""
    enough = enough_labels(means[best.start], goal)
    if enough == share(1.0):
        return ""
    return f"; {enough} of the labels are enough for it to match the {goal:.1f} of {baseline}"


def _seeds(number: float) -> str:
    return count(int(number), "seed")
