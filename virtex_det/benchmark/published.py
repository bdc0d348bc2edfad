"""Results that others published, by protocol, each read in the source named."""

import dataclasses
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml

PUBLISHED = Path(__file__).with_name("published.yaml")


@dataclasses.dataclass(frozen=True)
class PublishedResult:
    """What one start reaches according to one source.

    Attributes:
        protocol: id of the protocol, or of the nearest one if ``differs`` is not empty.
        start: what the detector started from.
        metrics: as in a result record, for example ``{"bbox": {"AP": 38.9}}``, in percent.
        source: where the numbers were read.
        how_sure: always "READ": numbers from memory are not allowed.
        differs: in what the source departs from the protocol; "" for nothing.
    """

    protocol: str
    start: str
    metrics: Mapping[str, Mapping[str, float]]
    source: str
    how_sure: str
    differs: str = ""

    def metric(self, metric: str) -> float:
        """Return the value of a metric such as "bbox/AP", NaN if the source has none."""
        task, _, name = metric.partition("/")
        return self.metrics.get(task, {}).get(name, math.nan)


@cache
def published() -> tuple[PublishedResult, ...]:
    """Return all published results in the order of published.yaml."""
    groups = yaml.safe_load(PUBLISHED.read_text())
    return tuple(_result(group, row) for group in groups for row in group["rows"])


def published_for(protocol: str) -> tuple[PublishedResult, ...]:
    """Return the results under a protocol, and under variants that ``differs`` describes.

    Args:
        protocol: an id; one with departures has no published results.
    """
    return tuple(result for result in published() if result.protocol == protocol)


def _result(group: Mapping, row: Mapping) -> PublishedResult:
    common = {name: value for name, value in group.items() if name != "rows"}
    metrics = {task: numbers for task, numbers in row.items() if task != "start"}
    return PublishedResult(start=row["start"], metrics=metrics, **common)
