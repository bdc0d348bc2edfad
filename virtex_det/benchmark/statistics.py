"""Mean and spread over seeds, and whether a difference is more than chance."""

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """Mean and sample standard deviation of one metric over several runs; no deviation for a single run."""

    mean: float
    deviation: float | None
    runs: int

    def __str__(self) -> str:
        spread = "" if self.deviation is None else f" ± {self.deviation:.1f}"
        return f"{self.mean:.1f}{spread}"


def spread(values: Iterable[float]) -> Spread:
    """Summarise the values of one metric.

    Example:
        >>> print(spread([10.0, 12.0]))
        11.0 ± 1.4
    """
    found = list(values)
    deviation = statistics.stdev(found) if len(found) > 1 else None
    return Spread(statistics.fmean(found), deviation, len(found))


class PairedTest(NamedTuple):
    """Mean difference of paired values and how likely one as great is by chance; None where that cannot be told."""

    difference: float
    p_value: float | None
    pairs: int


def paired_test(ours: Sequence[float], theirs: Sequence[float]) -> PairedTest:
    """Test with Student's t whether two starts differ, each pair of values measured with one seed.

    The same seed draws the same labels, order of images and new layers for both, so the pairs differ less than the
    values. A deviation needs two pairs, and differences that are all the same have none: then there is no p-value. Few
    pairs find only great differences, and say nothing of those they do not find.

    Args:
        ours: a value per seed.
        theirs: the values of the same seeds, in the same order.

    Raises:
        ValueError: the numbers of values differ, or there are none.

    Example:
        >>> paired_test([12.0, 13.0], [10.0, 11.0])
        PairedTest(difference=2.0, p_value=None, pairs=2)
    """
    differences = [mine - other for mine, other in zip(ours, theirs, strict=True)]
    mean = statistics.fmean(differences)
    # Differences equal but for rounding would give a p-value of almost 0 or of anything.
    if len(differences) < 2 or max(differences) - min(differences) < 1e-9:
        return PairedTest(mean, None, len(differences))
    from scipy.stats import ttest_rel  # a second to import, and no training needs it

    return PairedTest(mean, float(ttest_rel(ours, theirs).pvalue), len(differences))
