"""Results that others published, by protocol, each read in the source named."""

import dataclasses
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from virtex_det.errors import UserError
from virtex_det.yaml_files import Text, YamlFile, read_yaml_file

PUBLISHED = Path(__file__).with_name("published.yaml")


@dataclasses.dataclass(frozen=True)
class PublishedResult:
    """What one start reaches according to one source.

    Attributes:
        protocol: id of the protocol, or of the nearest one if ``differs`` is not empty.
        start: what the detector started from.
        metrics: as in a result record, for example ``{"bbox": {"AP": 38.9}}``, in percent.
        paper: the paper or project that reports the numbers.
        source: where they were read.
        how_sure: always "READ": numbers from memory are not allowed.
        table: where in the source they stand; "" if that is not known.
        differs: in what the source departs from the protocol; "" for nothing.
    """

    protocol: Text
    start: Text
    metrics: Mapping[str, Mapping[str, float]]
    paper: Text
    source: Text
    how_sure: Text
    table: str = ""
    differs: str = ""

    @property
    def place(self) -> str:
        """The source, and the table in it."""
        return ", ".join(filter(None, (self.source, self.table)))

    def metric(self, metric: str) -> float:
        """Return the value of a metric such as "bbox/AP", NaN if the source has none."""
        task, _, name = metric.partition("/")
        return self.metrics.get(task, {}).get(name, math.nan)


@dataclasses.dataclass
class _Group:
    """Rows of one source and one protocol, as they are written."""

    protocol: Text
    paper: Text
    source: Text
    how_sure: Text
    rows: list[dict[str, Any]]
    table: str = ""
    differs: str = ""


@cache
def published() -> tuple[PublishedResult, ...]:
    """Return all published results of the package, in the order of published.yaml."""
    file = read_yaml_file(PUBLISHED)
    return published_results(file, file.content)


def published_for(protocol: str) -> tuple[PublishedResult, ...]:
    """Return the results under a protocol, and under variants that ``differs`` describes.

    Args:
        protocol: an id; one with departures has no published results.
    """
    return tuple(result for result in published() if result.protocol == protocol)


def published_results(
    file: YamlFile, groups: Any, *place: str | int
) -> tuple[PublishedResult, ...]:
    """Return the results of groups of rows, in the form of published.yaml.

    Args:
        file: that holds them.
        groups: its part with the groups.
        place: keys that lead to that part; none if it is the whole file.

    Raises:
        UserError: a field is unknown, missing or invalid, or a row is there twice; says file and
            line.
    """
    if not isinstance(groups, list):
        raise UserError(
            f"{file.at(*place)}: expected a list of groups of published rows, each with protocol, "
            f"paper, source, how_sure and rows; found {groups!r:.80}."
        )
    results: dict[tuple[str, ...], PublishedResult] = {}
    for index, content in enumerate(groups):
        group = file.convert(content, _Group, *place, index)
        if group.how_sure != "READ":
            raise UserError(
                f"{file.at(*place, index, 'how_sure')}: how_sure is {group.how_sure:.80}, but only "
                "numbers that were READ in the source named are taken, never those from memory."
            )
        common = {name: value for name, value in vars(group).items() if name != "rows"}
        for number, row in enumerate(group.rows):
            where = (*place, index, "rows", number)
            _check_numbers(file, row, *where)
            numbers = {task: of_task for task, of_task in row.items() if task != "start"}
            start = {"start": row["start"]} if "start" in row else {}
            result = file.convert(common | start | {"metrics": numbers}, PublishedResult, *where)
            key = (result.protocol, result.source, result.table, result.start)
            if key in results:
                raise UserError(
                    f"{file.at(*where)}: a second row of {result.start:.80} under "
                    f"{result.protocol} from one source. Remove one of the two."
                )
            results[key] = result
    return tuple(results.values())


def _check_numbers(file: YamlFile, row: Mapping[str, Any], *where: str | int) -> None:
    tasks = [task for task in row if task != "start"]
    if not tasks:
        raise UserError(f"{file.at(*where)}: the row has no numbers, such as bbox: {{AP: 38.9}}.")
    for task in tasks:
        numbers = row[task]
        is_valid = isinstance(numbers, dict) and numbers and all(map(_is_percent, numbers.values()))
        if not is_valid:
            raise UserError(
                f"{file.at(*where, task)}: expected the metrics of {task:.80} in percent, such as "
                f"{task:.80}: {{AP: 38.9}}; found {numbers!r:.80}."
            )


def _is_percent(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 100
