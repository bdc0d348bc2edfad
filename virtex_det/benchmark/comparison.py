"""The records of a matrix's runs: checked, as one tidy table, and written as lines of JSON."""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from virtex_det.benchmark.costs import RunCost, cost_from
from virtex_det.benchmark.published import PublishedResult, published_for
from virtex_det.benchmark.records import ResultRecord, record_from
from virtex_det.errors import UserError
from virtex_det.files import open_regular
from virtex_det.utils import write_atomically

# Names may hold half surrogates, which pyarrow, where it is installed, cannot store.
pd.set_option("mode.string_storage", "python")

_MOST_GAPS = 12  # rows of missing runs that are named, and starts in a row


class Cell(NamedTuple):
    """The place of a run in a matrix."""

    start: str
    protocol: str
    fraction: float
    seed: int


def share(fraction: float) -> str:
    """Return a fraction of the labels in percent, with at most three digits.

    Example:
        >>> share(0.1), share(0.0234)
        ('10 %', '2.34 %')
    """
    return f"{100 * fraction:.3g} %"


@dataclasses.dataclass
class Comparison:
    """What the runs of a matrix measured.

    Attributes:
        title: the question that the matrix asks.
        baseline: the start that the others are compared with; "" for none, or one without records.
        records: by cell.
        mix: allow records of several protocol ids under one name.
        pairs: of starts that are compared with each other; those without records are left out.
        pretraining: what the run cost that made the weights of a cell, where that is known.
        missing: cells of the matrix without a record.
        published: results of others that the matrix adds to those of the package.
        starts: in the order of the matrix.
        protocols: their names in the matrix, in its order.
        fractions: of the labels, ascending.
        seeds: ascending.
        recipes: protocol ids of the records, which show departures.

    Raises:
        UserError: the records have several versions of a data set, or several protocol ids under
            one name although ``mix`` is False.
    """

    title: str
    baseline: str
    records: Mapping[Cell, ResultRecord]
    mix: bool = False
    pairs: Sequence[tuple[str, str]] = ()
    pretraining: Mapping[Cell, RunCost] = dataclasses.field(default_factory=dict)
    missing: Sequence[Cell] = ()
    published: Sequence[PublishedResult] = ()

    def __post_init__(self) -> None:
        self.starts = list(dict.fromkeys(cell.start for cell in self.records))
        self.baseline = self.baseline if self.baseline in self.starts else ""
        self.pairs = [pair for pair in self.pairs if set(pair) <= set(self.starts)]
        self.protocols = list(dict.fromkeys(cell.protocol for cell in self.records))
        self.fractions = sorted({cell.fraction for cell in self.records})
        self.seeds = sorted({cell.seed for cell in self.records})
        self.recipes = list(dict.fromkeys(record.protocol for record in self.records.values()))
        _check_versions(self.records)
        if not self.mix:
            _check_recipes(self.records)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The records as a tidy table: a row per run and metric.

        Rows are sorted by protocol and start in the order of the matrix, then by fraction and seed.
        Columns: start, protocol, fraction, seed; recipe (protocol id of the record); dataset
        (evaluated on); seconds (of training; NaN if unknown); metric (such as "bbox/AP"); value (in
        percent).

        The data set decides whether a metric is defined. If only some runs of a protocol have it,
        the others found nothing, and their value is 0; if no run has it, it is NaN.
        """
        values = {cell: record.flat_metrics() for cell, record in self.records.items()}
        metrics = dict.fromkeys(metric for of_run in values.values() for metric in of_run)
        rows = []
        for cell, record in self.records.items():
            run = [*cell, record.protocol, record.dataset, record.training_seconds]
            rows += [[*run, metric, values[cell].get(metric)] for metric in metrics]
        columns = [*Cell._fields, "recipe", "dataset", "seconds", "metric", "value"]
        frame = pd.DataFrame(rows, columns=columns, dtype=object)
        frame = frame.astype({"seconds": float, "value": float})
        for column, order in {"protocol": self.protocols, "start": self.starts}.items():
            frame[column] = pd.Categorical(frame[column], order, ordered=True)
        frame = frame.sort_values(["protocol", "start", "fraction", "seed"])
        found = frame.groupby(["protocol", "metric"], observed=True)["value"].transform("count")
        frame["value"] = frame["value"].fillna(0.0).where(found > 0)
        return frame

    @property
    def metrics(self) -> list[str]:
        """The names of the measured metrics, in the order of the records."""
        return list(self.frame["metric"].unique())

    def published_for(self, recipe: str) -> list[PublishedResult]:
        """Return what others published under a protocol id of the records."""
        added = [result for result in self.published if result.protocol == recipe]
        return [*published_for(recipe), *added]

    def of(self, protocols: Collection[str]) -> "Comparison":
        """Return the part under some protocols."""
        records = {c: record for c, record in self.records.items() if c.protocol in protocols}
        return dataclasses.replace(self, records=records)

    @property
    def curves(self) -> "Comparison":
        """The part under protocols with several fractions of the labels; all if there is none."""
        fractions = defaultdict(set)
        for cell in self.records:
            fractions[cell.protocol].add(cell.fraction)
        several = [protocol for protocol in self.protocols if len(fractions[protocol]) > 1]
        return self.of(several or self.protocols)

    @property
    def gaps(self) -> str:
        """A sentence on what is missing of an unfinished matrix; "" for a whole one."""
        if not self.missing:
            return ""
        done, named = len(self.records), _rows_of(self.missing, self.records)
        more = [f"and {len(named) - _MOST_GAPS} more"] if len(named) > _MOST_GAPS else []
        return (
            f"Unfinished: {done} of the {done + len(self.missing)} runs of the matrix are "
            f"complete, and only they are compared. Missing: "
            f"{'; '.join([*named[:_MOST_GAPS], *more])}."
        )

    @property
    def text_encoders(self) -> list[str]:
        """Sentences on the pretrained text encoders of starts, which are part of each number."""
        sentences = []
        for cell, record in self.records.items():
            if name := record.weights.get("text_encoder"):
                sentences.append(f"Pretrained text encoder of {cell.start}: {name}.")
        return list(dict.fromkeys(sentences))

    def write_records(self, path: str | Path) -> None:
        """Write a line of JSON per run, atomically."""
        text = ""
        for cell, record in self.records.items():
            line = {"cell": cell._asdict(), "record": dataclasses.asdict(record)}
            if cell in self.pretraining:
                line["pretraining"] = self.pretraining[cell].as_json()
            text += json.dumps(line, allow_nan=False) + "\n"
        write_atomically(path, text)


def read_comparison(
    path: str | Path,
    title: str = "",
    baseline: str = "",
    *,
    mix: bool = False,
    pairs: Sequence[tuple[str, str]] = (),
) -> Comparison:
    """Read what ``Comparison.write_records`` wrote.

    Raises:
        UserError: the file is missing or empty, a line is not a record, two lines have the same
            cell, or the records do not compare.
    """
    try:
        with open_regular(path) as file:
            lines = file.read().decode().split("\n")
    except (UserError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"The records {path} cannot be read: {error}") from error
    lines = lines[:-1] if lines[-1] == "" else lines
    found: dict[Cell, ResultRecord] = {}
    pretraining: dict[Cell, RunCost] = {}
    for number, line in enumerate(lines, start=1):
        cell, record, cost = _parsed(line, f"{path}, line {number}")
        if cell in found:
            raise UserError(
                f"{path}, line {number}: a second record of {_words(cell)}. Remove one of the two."
            )
        found[cell] = record
        if cost is not None:
            pretraining[cell] = cost
    if not found:
        raise UserError(
            f"{path} holds no records. Make it from the runs: "
            "tools/benchmark.py table --write-records."
        )
    return Comparison(title, baseline, found, mix, pairs, pretraining)


def _parsed(line: str, where: str) -> tuple[Cell, ResultRecord, RunCost | None]:
    """Return the cell and the record of a line, and what its pretraining cost if it says so."""
    try:
        content = json.loads(line)
        is_pair = isinstance(content, dict) and content.keys() >= {"cell", "record"}
        if not is_pair or not isinstance(content["cell"], dict):
            raise ValueError('expected {"cell": {...}, "record": {...}}')
        cell, record = Cell(**content["cell"]), content["record"]
        if not isinstance(cell.start, str) or not isinstance(cell.protocol, str):
            raise ValueError(f"its cell is {str(tuple(cell)):.200}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{where} is not a record: {error}\nMake the file again from the runs."
        ) from error
    found = record_from(record, where)
    if (cell.fraction, cell.seed) != (found.train_fraction, found.seed):
        raise UserError(
            f"{where}: the record has fraction {found.train_fraction} and seed {found.seed}, but "
            f"its cell has {cell.fraction} and {cell.seed}: edited by hand or damaged. Make the "
            "file again from the runs."
        )
    cost = content.get("pretraining")  # not in lines of earlier versions
    return cell, found, None if cost is None else cost_from(cost, where)


def _check_recipes(records: Mapping[Cell, ResultRecord]) -> None:
    """Refuse records of several protocol ids under one name: they would stand in one table."""
    ids = ((cell.protocol, record.protocol, cell) for cell, record in records.items())
    advice = "To show them in one table anyway, set --mix-protocols."
    _refuse_several("protocols", ids, advice)


def _check_versions(records: Mapping[Cell, ResultRecord]) -> None:
    """Refuse records of one data set with two contents: their numbers never compare."""
    found = []
    for cell, record in records.items():
        for name, version in record.data_versions().items():
            words = f"{version['images']} images, sha256 {version['sha256'][:12]}"
            found.append((name, words, cell))
    advice = "Do the runs of one of them again, or compare each version by itself."
    _refuse_several("versions", found, advice)


def _refuse_several(what: str, found: Iterable[tuple[str, str, Cell]], advice: str) -> None:
    """Refuse a name that has several values; the message has a cell as an example of each."""
    examples: dict[str, dict[str, Cell]] = defaultdict(dict)
    for name, value, cell in found:
        examples[name].setdefault(value, cell)
    for name, of_name in examples.items():
        if len(of_name) > 1:
            lines = [f"  {value}, e.g. {_words(cell)}" for value, cell in of_name.items()]
            lines.append(advice)
            raise UserError(
                f"These records are of {len(of_name)} {what} of {name}, whose numbers do not "
                "compare:\n" + "\n".join(lines)
            )


def _rows_of(missing: Sequence[Cell], done: Iterable[Cell]) -> list[str]:
    """Return missing cells in words, those together that differ in nothing but their start."""
    whole = [*done, *missing]
    has_protocols = len({cell.protocol for cell in whole}) > 1
    fractions: dict[tuple[int, str, str], list[float]] = defaultdict(list)
    for cell in missing:
        fractions[cell.seed, cell.protocol, cell.start].append(cell.fraction)
    starts: dict[tuple[int, str, tuple[float, ...]], list[str]] = defaultdict(list)
    for (seed, protocol, start), of_start in fractions.items():
        starts[seed, protocol, tuple(of_start)].append(start)
    rows = []
    for (seed, protocol, of_rows), names in starts.items():
        expected = [cell for cell in whole if cell.protocol == protocol]
        shown = names[:_MOST_GAPS]
        if len(names) > len(shown):
            shown.append(f"{len(names) - len(shown)} more starts")
        are_all = len(names) == len({cell.start for cell in expected})
        row = f"seed {seed} of {'every start' if are_all else ', '.join(shown)}"
        row += f" under {protocol}" if has_protocols else ""
        if len(of_rows) < len({cell.fraction for cell in expected}):
            row += f" at {', '.join(map(share, of_rows))}"
        rows.append(row)
    return rows


def _words(cell: Cell) -> str:
    labels = f"{share(cell.fraction)} of the labels"
    return f"{cell.start}, {cell.protocol}, {labels}, seed {cell.seed}"
