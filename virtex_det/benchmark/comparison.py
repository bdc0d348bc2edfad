"""Runs that differ in start, fraction of the labels and seed: kept as lines of JSON, shown as a table."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from virtex_det.benchmark.records import ResultRecord
from virtex_det.benchmark.statistics import Spread, spread
from virtex_det.errors import UserError
from virtex_det.utils import write_atomically

METRICS = {"Box AP": "bbox", "Mask AP": "segm"}


class Cell(NamedTuple):
    """Where a run stands in a matrix."""

    start: str
    fraction: float
    seed: int


class Comparison(NamedTuple):
    """What the runs of a matrix measured."""

    title: str
    records: Mapping[Cell, ResultRecord]

    def table(self) -> str:
        """Return a Markdown table: a row per start, mean and sample standard deviation over seeds, the best bold."""
        fractions = sorted({cell.fraction for cell in self.records})
        starts = list(dict.fromkeys(cell.start for cell in self.records))
        columns = [(fraction, metric) for fraction in fractions for metric in METRICS]
        heads = [f"{metric}, {fraction:.0%} of the labels" for fraction, metric in columns]
        table = {start: [self._spread(start, *column) for column in columns] for start in starts}
        best = [max(row[number].mean for row in table.values()) for number in range(len(columns))]
        lines = [_line(["start", *heads]), _line(["---"] * (1 + len(heads)))]
        for start, row in table.items():
            values = [f"**{value}**" if value.mean == top else str(value) for value, top in zip(row, best, strict=True)]
            lines.append(_line([start, *values]))
        return "\n".join(lines)

    def page(self, command: str) -> str:
        """Return the table with what it shows and how it was made.

        Args:
            command: that runs the matrix.
        """
        record = next(iter(self.records.values()))
        seeds = ", ".join(sorted({str(cell.seed) for cell in self.records}))
        return f"""# {self.title}

Data set `{record.dataset}`, protocol `{record.protocol}`. Mean ± standard deviation over the seeds {seeds}; each
draws its own labels, order of images and new layers, the same for every start. Each start was pretrained once, so the
spread has no pretraining in it.

{self.table()}

Code `{record.code_revision}`, {record.hardware.get("cpu")}. The records lie beside this file; made by

```bash
{command}
```
"""

    def write_records(self, path: str | Path) -> None:
        """Write a line of JSON per run, atomically."""
        lines = [{"cell": cell._asdict(), "record": dataclasses.asdict(r)} for cell, r in self.records.items()]
        write_atomically(Path(path), "".join(json.dumps(line) + "\n" for line in lines))

    def _spread(self, start: str, fraction: float, metric: str) -> Spread:
        runs = [r for cell, r in self.records.items() if (cell.start, cell.fraction) == (start, fraction)]
        return spread(run.metrics[METRICS[metric]]["AP"] or 0.0 for run in runs)


def read_comparison(title: str, path: str | Path) -> Comparison:
    """Read what ``Comparison.write_records`` wrote.

    Raises:
        UserError: the file is missing, or a line is not such a record.
    """
    records, number = {}, 0
    try:
        for line in Path(path).read_text().splitlines():
            number += 1
            content = json.loads(line)
            records[Cell(**content["cell"])] = ResultRecord(**content["record"])
    except OSError as error:
        raise UserError(f"There are no records {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}, line {number} is no record: {error}\nMake the file again from the runs.") from error
    return Comparison(title, records)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
