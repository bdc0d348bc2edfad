"""Mean and spread over seeds."""

import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from virtex_det.benchmark.records import ResultRecord


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


def last_records(records: Iterable[ResultRecord]) -> list[ResultRecord]:
    """Keep the evaluation with the most training behind it, per run: dataset, fraction, seed and weights."""
    newest: dict[tuple, ResultRecord] = {}
    for record in records:
        key = (record.dataset, record.train_fraction, record.subset_seed, record.seed, initialisation(record))
        if key not in newest or (record.iteration or 0) >= (newest[key].iteration or 0):
            newest[key] = record
    return list(newest.values())


def by_arm(records: Iterable[ResultRecord]) -> dict[tuple[float, str], list[ResultRecord]]:
    """Group records that differ in their seed alone: by fraction of the labels and initialisation, sorted."""
    arms = defaultdict(list)
    for record in records:
        arms[record.train_fraction, initialisation(record)].append(record)
    # Random first: it is what the others are compared with.
    return dict(sorted(arms.items(), key=lambda arm: (arm[0][0], arm[0][1] != RANDOM, arm[0][1])))


RANDOM = "random init"


def initialisation(record: ResultRecord) -> str:
    """Return the format of the weights that a run started from, "random init" where there were none."""
    return record.weights.get("format", RANDOM)
