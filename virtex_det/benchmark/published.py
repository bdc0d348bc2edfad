"""Numbers that others published, by the protocol they were measured under; nothing here is ours or from memory."""

import dataclasses
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml

PUBLISHED = Path(__file__).with_name("published.yaml")
READ = "READ"  # in the source named, by whoever wrote it down here


@dataclasses.dataclass(frozen=True)
class PublishedResult:
    """What one source says that one start reaches.

    Attributes:
        protocol: id of the protocol, or of the nearest where ``differs`` says something.
        start: what the detector started from.
        metrics: as in a result record, for example ``{"bbox": {"AP": 38.9}}``, in percent.
        source: where the numbers stand.
        how_sure: always READ: a recollected number has no place here.
        differs: how the source's protocol is another one; "" where it is the same.
    """

    protocol: str
    start: str
    metrics: Mapping[str, Mapping[str, float]]
    source: str
    how_sure: str
    differs: str = ""

    def metric(self, task: str, name: str) -> float:
        """Return a number, NaN where the source has none."""
        return self.metrics.get(task, {}).get(name, math.nan)


@cache
def published() -> tuple[PublishedResult, ...]:
    """Return every published number, by protocol in the order of published.yaml."""
    groups = yaml.safe_load(PUBLISHED.read_text())
    return tuple(_result(group, row) for group in groups for row in group["rows"])


def published_for(protocol: str) -> tuple[PublishedResult, ...]:
    """Return what is published under a protocol, and under variants of it, which say so in ``differs``.

    Args:
        protocol: an id; for one that shows a departure nothing is published.
    """
    return tuple(result for result in published() if result.protocol == protocol)


def _result(group: Mapping, row: Mapping) -> PublishedResult:
    common = {
        name: group[name] for name in ("protocol", "source", "how_sure", "differs") if name in group
    }
    metrics = {task: row[task] for task in ("bbox", "segm", "svm", "classification") if task in row}
    return PublishedResult(start=row["start"], metrics=metrics, **common)
