"""Runs that differ in start, protocol, fraction of the labels and seed: made comparable, kept as lines of JSON."""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from virtex_det.benchmark.records import ResultRecord, record_from
from virtex_det.errors import UserError
from virtex_det.files import open_regular
from virtex_det.utils import write_atomically


class Cell(NamedTuple):
    """Where a run stands in a matrix."""

    start: str
    protocol: str
    fraction: float
    seed: int


@dataclasses.dataclass
class Comparison:
    """What the runs of a matrix measured.

    Attributes:
        title: what is asked.
        baseline: the start that the others are compared with; "" for none.
        records: by cell.
        mix: take records of several protocols.
        starts: in the order of the matrix.
        protocols: by the names that the matrix gives them, in its order.
        fractions: of the labels, ascending.
        seeds: ascending.
        recipes: the protocol identifiers in the records; they show departures.
        is_of_one_protocol: by its name and by its identifier.

    Raises:
        UserError: the records are of several versions of a data set, or of several protocols and
            ``mix`` is False.
    """

    title: str
    baseline: str
    records: Mapping[Cell, ResultRecord]
    mix: bool = False

    def __post_init__(self) -> None:
        self.starts = list(dict.fromkeys(cell.start for cell in self.records))
        self.protocols = list(dict.fromkeys(cell.protocol for cell in self.records))
        self.fractions = sorted({cell.fraction for cell in self.records})
        self.seeds = sorted({cell.seed for cell in self.records})
        self.recipes = list(dict.fromkeys(record.protocol for record in self.records.values()))
        self.is_of_one_protocol = len(self.protocols) == len(self.recipes) == 1
        _check_versions(self.records)
        if len(self.recipes) > 1 and not self.mix:
            examples = {record.protocol: cell for cell, record in self.records.items()}
            raise UserError(
                f"These records are of {len(examples)} protocols, whose numbers do not compare:\n"
                + "\n".join(f"  {recipe}, e.g. {_words(cell)}" for recipe, cell in examples.items())
                + "\nTo see them in one table, which then says so: --mix-protocols."
            )

    @property
    def text_encoders(self) -> list[str]:
        """Which pretrained text encoder a start learned with, a sentence each: it is a part of each number."""
        named = {
            f"Pretrained text encoder of {cell.start}: {record.weights['text_encoder']}.": None
            for cell, record in self.records.items()
            if record.weights.get("text_encoder")
        }
        return list(named)

    def write_records(self, path: str | Path) -> None:
        """Write a line of JSON per run, atomically."""
        lines = [
            {"cell": cell._asdict(), "record": dataclasses.asdict(r)}
            for cell, r in self.records.items()
        ]
        write_atomically(
            Path(path), "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        )


def read_comparison(
    path: str | Path, title: str = "", baseline: str = "", *, mix: bool = False
) -> Comparison:
    """Read what ``Comparison.write_records`` wrote.

    Raises:
        UserError: the file is missing or empty, a line is no such record or of a cell that an earlier line has, or the
            records do not compare.
    """
    try:
        with open_regular(path) as file:
            lines = file.read().decode().split("\n")
    except (UserError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"The records {path} cannot be read: {error}") from error
    lines = lines[:-1] if lines[-1] == "" else lines
    found: dict[Cell, ResultRecord] = {}
    for number, line in enumerate(lines, start=1):
        cell, record = _cell_and_record(line, f"{path}, line {number}")
        if cell in found:
            raise UserError(
                f"{path}, line {number}: a second record of {_words(cell)}. Remove one of the two."
            )
        found[cell] = record
    if not found:
        raise UserError(
            f"{path} holds no records. Make it from the runs: tools/benchmark.py table --write-records."
        )
    return Comparison(title, baseline, found, mix)


def _cell_and_record(line: str, where: str) -> tuple[Cell, ResultRecord]:
    try:
        content = json.loads(line)
        if (
            not isinstance(content, dict)
            or not isinstance(content.get("cell"), dict)
            or "record" not in content
        ):
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
            f"{where}: the record is of fraction {found.train_fraction} and seed {found.seed}, and the line says "
            f"{cell.fraction} and {cell.seed}: edited by hand or damaged. Make the file again from the runs."
        )
    return cell, found


def _check_versions(records: Mapping[Cell, ResultRecord]) -> None:
    """Numbers on one data set's name and two contents never compare."""
    found: dict[str, dict[str, Cell]] = defaultdict(dict)
    for cell, record in records.items():
        for name, version in (
            record.train_versions | {record.dataset: record.dataset_version}
        ).items():
            found[name].setdefault(
                f"{version['images']} images, sha256 {version['sha256'][:12]}", cell
            )
    for name, versions in found.items():
        if len(versions) > 1:
            raise UserError(
                f"These records are of {len(versions)} versions of {name}, whose numbers do not compare:\n"
                + "\n".join(
                    f"  {version}, e.g. {_words(cell)}" for version, cell in versions.items()
                )
                + "\nDo the runs of one of them again, or compare each version by itself."
            )


def _words(cell: Cell) -> str:
    return f"{cell.start}, {cell.protocol}, {100 * cell.fraction:.3g} % of the labels, seed {cell.seed}"
