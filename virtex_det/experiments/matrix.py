"""A matrix of starts, protocols, fractions of labels and seeds, with the pretraining it needs."""

import dataclasses
import difflib
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec
from detectron2.config import CfgNode

from virtex_det.benchmark.comparison import Cell, Comparison, read_comparison, share
from virtex_det.benchmark.costs import RunCost, read_cost
from virtex_det.benchmark.published import PublishedResult
from virtex_det.benchmark.records import ResultRecord
from virtex_det.benchmark.report import write_report
from virtex_det.config.data_names import short_names
from virtex_det.config.roles import OF_MATRIX
from virtex_det.errors import UserError
from virtex_det.experiments.commands import repeat_commands
from virtex_det.experiments.configs import (
    as_words,
    begun_config,
    config_of,
    is_probe,
    shared_options,
    trained_config,
)
from virtex_det.experiments.ground_truth import ground_truth_files
from virtex_det.experiments.local import LocalLauncher
from virtex_det.experiments.preflight import (
    check_folders,
    check_output,
    check_sources,
    check_weights,
)
from virtex_det.experiments.runs import Launcher, Run, is_done, train_all
from virtex_det.protocols.card import protocol_card
from virtex_det.protocols.catalog import Protocol
from virtex_det.protocols.matching import protocol_id

# Files are checked against these types; a matrix made in Python is trusted with them.
Name = Annotated[str, msgspec.Meta(min_length=1)]
Seed = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]  # of NumPy; Detectron2 reads -1 as none
Options = Mapping[str, Any]

_LONGEST = 200  # bytes of a folder's name, made of those of a start and a protocol


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """A start that is made by pretraining.

    Attributes:
        pretrain: config of the pretraining.
        seed: of one pretraining that serves all seeds; None pretrains once per seed.
        options: further config keys.
    """

    pretrain: Path
    seed: Seed | None = None
    options: Options = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Matrix:
    """The runs of a comparison; see configs/benchmarks/.

    Attributes:
        title: the question that the comparison asks.
        output: folder of all its runs.
        protocols: by name, configs of the fine-tunes or of SVM probes of frozen features.
        starts: by name, weights ("" for random init) or the pretraining that makes them.
        fractions: of the labels.
        seeds: each draws its own labels, order of images and new layers.
        baseline: the start that the others are compared with; "" for none.
        options: config keys of all fine-tunes and probes; a probe reads none of SOLVER.
        pairs: of starts that are compared with each other.
        some_fractions: by name, the fractions of protocols that are not run with all of them.
        own_protocols: by name, those of ``protocols`` that the matrix defines as its own.
        published: results of others, beside those of the package.
    """

    title: Name
    output: Path
    protocols: Mapping[Name, Path]
    starts: Mapping[Name, str | Pretraining]
    fractions: tuple[float, ...]
    seeds: tuple[Seed, ...]
    baseline: str = ""
    options: Options = dataclasses.field(default_factory=dict)
    pairs: tuple[tuple[str, str], ...] = ()
    some_fractions: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    own_protocols: Mapping[str, Protocol] = dataclasses.field(default_factory=dict)
    published: tuple[PublishedResult, ...] = ()

    def __post_init__(self) -> None:
        folders = [_slug(start, protocol) for start in self.starts for protocol in self.protocols]
        if long := [name for name in folders if len(name.encode()) > _LONGEST]:
            raise UserError(
                "The matrix has names that are too long for a folder, e.g. "
                f"{long[0]:.100}... Shorten them."
            )
        named: dict[str, Sequence[object]] = {
            "fractions": self.fractions,
            "seeds": self.seeds,
            "starts": list(map(_slug, self.starts)),
            "protocols": list(map(_slug, self.protocols)),
            "folders": folders,
        }
        for what, values in named.items():
            if not values or len(set(values)) < len(values):
                shown = ", ".join(map(str, values))
                raise UserError(f"The matrix has no {what}, or one of them twice: {shown}")
        for fraction in self.fractions:
            if not 0 < fraction <= 1:
                raise UserError(
                    "A fraction of the labels is above 0 and at most 1, but the matrix has "
                    f"{fraction}."
                )
        for protocol, fractions in self.some_fractions.items():
            is_part = set(fractions) <= set(self.fractions)
            if not (fractions and is_part) or len(set(fractions)) < len(fractions):
                raise UserError(
                    f"The protocol {protocol!r} has the fractions {_listed(fractions)}; expected "
                    f"some of those of the matrix, each once: {_listed(self.fractions)}."
                )
        named_starts = {"baseline": [self.baseline] if self.baseline else []}
        named_starts["pairs"] = [start for pair in self.pairs for start in pair]
        for what, names in named_starts.items():
            for name in names:
                if name not in self.starts:
                    nearest = difflib.get_close_matches(name, self.starts, n=1, cutoff=0)
                    raise UserError(f"{what}: {name!r} is not a start; the nearest: {nearest[0]}")
        if same := [pair for pair in self.pairs if pair[0] == pair[1]]:
            raise UserError(f"pairs: {same[0][0]!r} is paired with itself.")
        if len(set(self.pairs)) < len(self.pairs):
            raise UserError("pairs: a pair is listed twice. Remove one of the two.")
        own = [key for key in self.options if key in OF_MATRIX]
        for start in self.starts.values():
            if isinstance(start, Pretraining):
                own += [key for key in start.options if key in ("SEED", "OUTPUT_DIR")]
        if own:
            raise UserError(
                f"{own[0]} under options: a matrix sets it itself, from starts, fractions, seeds "
                "and output."
            )

    @cached_property
    def cells(self) -> dict[Cell, Run]:
        """The fine-tunes and probes that are compared."""
        cells = {}
        for start in self.starts:
            for protocol in self.protocols:
                fractions = self.some_fractions.get(protocol, self.fractions)
                for fraction in map(float, fractions):
                    for seed in self.seeds:
                        cell = Cell(start, protocol, fraction, seed)
                        cells[cell] = self._measured_run(cell)
        return cells

    def pretraining(self) -> list[Run]:
        """Return the runs that make weights."""
        return list(dict.fromkeys(run.after for run in self.cells.values() if run.after))

    def runs(self) -> list[Run]:
        """Return all runs, pretraining last."""
        return [*self.cells.values(), *self.pretraining()]

    def config(self, protocol: str, fraction: float = 1.0) -> CfgNode:
        """Return the config of a protocol's runs, without what starts, seeds and data set."""
        path, options = self._recipe(protocol, fraction)
        return config_of(path, options)

    def cards(self) -> dict[str, dict[str, str]]:
        """Return each protocol in words."""
        cards = {}
        for name in self.protocols:
            runs = [run for cell, run in self.cells.items() if cell.protocol == name]
            cfg = self.config(name)
            begun = begun_config(cfg, runs)
            cards[name] = protocol_card(begun, tuple(self.own_protocols.values()))
        return cards

    def protocol_id(self, protocol: str, fraction: float) -> str:
        """Return the protocol id of runs, with what they take from their data if these are here."""
        return _protocol_id(*self._recipe(protocol, fraction))

    def published_by_record(self) -> list[PublishedResult]:
        """Return the results of others under the protocol ids that records have.

        A record names public protocols alone, so that it can be read without the matrix. A run of
        an own protocol has its id only if no option of the matrix departs from it.
        """
        found = []
        for result in self.published:
            if result.protocol in self.own_protocols:
                path = self.protocols[result.protocol]
                recipe = _protocol_id(path, shared_options(path, {}, 1.0))
                result = dataclasses.replace(result, protocol=recipe)
            found.append(result)
        return found

    def _recipe(self, protocol: str, fraction: float) -> tuple[Path, tuple[str, ...]]:
        """Return the config file of a protocol's runs, and the options that these share."""
        path = self.protocols[protocol]
        return path, shared_options(path, self.options, fraction)

    def _measured_run(self, cell: Cell) -> Run:
        start, after = self.starts[cell.start], None
        weights: object = start
        if isinstance(start, Pretraining):
            after = self._pretraining(cell.start, start, cell.seed)
            weights = after.folder / "model_final.pth"
        own = {"MODEL.WEIGHTS": weights, "DATASETS.SUBSET_SEED": cell.seed, "SEED": cell.seed}
        path, shared = self._recipe(cell.protocol, cell.fraction)
        cfg = config_of(path, shared)
        return Run(
            self.output / _slug(*cell),
            path,
            as_words(own) + shared,
            None if is_probe(path) else cfg.SOLVER.MAX_ITER,
            next(iter(short_names(cfg.DATASETS.TEST).values()), ""),
            after,
        )

    def _pretraining(self, name: str, start: Pretraining, seed: int) -> Run:
        seed = seed if start.seed is None else start.seed
        options = as_words({"DATASETS.TEST": ()} | dict(start.options))
        iterations = config_of(start.pretrain, options).SOLVER.MAX_ITER
        folder = self.output / "pretrain" / _slug(name, seed)
        return Run(folder, start.pretrain, ("SEED", str(seed), *options), iterations)


def run_matrix(
    matrix: Matrix, launcher: Launcher | None = None, kept: str | Path | None = None
) -> Comparison:
    """Do the missing runs of a matrix, several at once, and return what all of them measured.

    Args:
        matrix: what to run.
        launcher: where; by default on this machine.
        kept: file of records, as ``Comparison.write_records`` writes it. Runs that it has are not
            done again, and each new record is added as its run ends. So another machine that has
            the file goes on with the matrix.

    Raises:
        UserError: the matrix is invalid, or runs failed, with the ends of their logs. Complete runs
            stay and are not repeated.
    """
    check_weights({name: start for name, start in matrix.starts.items() if isinstance(start, str)})
    _check_measured(matrix)
    records, costs = _kept_records(matrix, kept)
    check_folders(matrix.runs())
    cells = {cell: run for cell, run in matrix.cells.items() if cell not in records}
    missing = [run for run in cells.values() if not is_done(run)]
    needed = {run.after for run in missing}
    pretraining = [run for run in matrix.pretraining() if run in needed and not is_done(run)]
    if missing:
        check_output(matrix.output, [*pretraining, *missing])
    check_sources([*pretraining, *missing])
    cell_of = {run: cell for cell, run in cells.items()}

    def keep(*runs: Run) -> None:
        """Add the records of complete runs to the file; pretraining has none."""
        found = {}
        for run in runs:
            cell = cell_of.get(run)
            if cell and (record := _own_record(cell, run)):
                found[cell] = record
                costs.update(_pretraining_costs({cell: record}, matrix))
        if kept is not None and found:
            records.update(found)
            ordered = {cell: records[cell] for cell in matrix.cells if cell in records}
            comparison = Comparison(
                matrix.title, matrix.baseline, ordered, mix=True, pretraining=costs
            )
            comparison.write_records(kept)

    keep(*(run for run in cells.values() if run not in missing))
    train_all(in_order(matrix.seeds, cells, pretraining), launcher or LocalLauncher(), on_done=keep)
    return measured(matrix, mix=True) if kept is None else recorded(matrix, kept, mix=True)


def _kept_records(
    matrix: Matrix, kept: str | Path | None
) -> tuple[dict[Cell, ResultRecord], dict[Cell, RunCost]]:
    """Return the records of a file and what pretraining cost; refuse those of other protocols.

    Both are empty if the file does not exist.
    """
    if kept is None or not Path(kept).exists():
        return {}, {}
    comparison = recorded(matrix, kept, mix=True, partial=True)
    for cell, record in comparison.records.items():
        expected = matrix.protocol_id(cell.protocol, cell.fraction)
        if record.protocol != expected:
            raise UserError(
                f"{kept} has records of the protocol {record.protocol} as {cell.protocol!r}, but "
                f"the config of the matrix now is {expected}.\n"
                "Put the config back as it was, or keep the new records in another file."
            )
    return dict(comparison.records), dict(comparison.pretraining)


def _check_measured(matrix: Matrix) -> None:
    """Refuse a protocol whose runs would measure nothing, and a probe with a part of the labels."""
    for cell, run in matrix.cells.items():
        if not run.dataset:
            raise UserError(
                f"DATASETS.TEST of the protocol {cell.protocol!r} is empty, so its runs would "
                "measure nothing. Name a dataset, in its config or under options."
            )
        if run.is_probe and cell.fraction != 1:
            raise UserError(
                f"The protocol {cell.protocol!r} is an SVM probe, which learns from all labels, "
                f"not from {share(cell.fraction)}.\nIn the matrix write {cell.protocol}: "
                f"{{config: {run.config}, fractions: [1.0]}}, with 1.0 among its fractions."
            )


def in_order(
    seeds: Sequence[Seed], cells: Mapping[Cell, Run], pretraining: Collection[Run]
) -> list[Run]:
    """Return the runs seed by seed, each pretraining just before the first run that needs it.

    In this order, a matrix that is done in part is a whole matrix of fewer seeds.

    Args:
        seeds: of the matrix, in its order.
        cells: the measured runs that are missing; their order gives that of the runs of a seed.
        pretraining: what is not complete of it.
    """
    runs: list[Run] = []
    for seed in seeds:
        for run in (run for cell, run in cells.items() if cell.seed == seed):
            if run.after and run.after in pretraining and run.after not in runs:
                runs.append(run.after)
            runs.append(run)
    return runs


def measured(matrix: Matrix, *, mix: bool = False, partial: bool = False) -> Comparison:
    """Return the records of the last iterations of a matrix's runs.

    Args:
        matrix: what was run.
        mix: allow several recipes under one protocol.
        partial: allow missing runs.

    Raises:
        UserError: runs are missing, folders hold other runs, or the records do not compare.
    """
    check_folders(matrix.runs())
    found = {cell: _own_record(cell, run) for cell, run in matrix.cells.items()}
    records = {cell: record for cell, record in found.items() if record is not None}
    missing = [cell for cell, record in found.items() if record is None]
    if missing and not (partial and records):
        advice = "\nTo show the others anyway: --partial." if records else ""
        raise UserError(
            f"{len(missing)} of the {len(matrix.cells)} runs in {matrix.output} are not complete, "
            f"e.g. {matrix.cells[missing[0]].folder.name}.\n"
            f"Do them with: python tools/benchmark.py run{advice}"
        )
    costs = _pretraining_costs(records, matrix)
    return Comparison(
        matrix.title,
        matrix.baseline,
        records,
        mix,
        matrix.pairs,
        costs,
        missing,
        matrix.published_by_record(),
    )


def _pretraining_costs(records: Mapping[Cell, ResultRecord], matrix: Matrix) -> dict[Cell, RunCost]:
    """Return what the runs cost that made the weights of cells, where their folders say it."""
    costs = {}
    for cell, record in records.items():
        after, weights = matrix.cells[cell].after, Path(record.weights.get("path", ""))
        if after is None and weights.name != "model_final.pth":  # not of a complete run
            continue
        if cost := read_cost(after.folder if after else weights.parent):
            costs[cell] = cost
    return costs


def _own_record(cell: Cell, run: Run) -> ResultRecord | None:
    """Return the record of a run's last iteration, None if there is none; refuse another run's."""
    record = run.final_record()
    if record is None:
        return None
    theirs = (record.train_fraction, record.subset_seed, record.seed)
    if theirs != (cell.fraction, cell.seed, cell.seed):
        raise UserError(
            f"{run.folder} holds the record of another run, with "
            f"{share(record.train_fraction)} of the labels and seed {record.seed}. Move that "
            "folder away and do the run again."
        )
    return record


def recorded(
    matrix: Matrix, path: str | Path, *, mix: bool = False, partial: bool = False
) -> Comparison:
    """Return the records of a matrix's runs that ``Comparison.write_records`` wrote to a file.

    Raises:
        UserError: the records are of another matrix, some are missing and ``partial`` is False, or
            they do not compare.
    """
    comparison = read_comparison(path, matrix.title, matrix.baseline, mix=mix, pairs=matrix.pairs)
    if strange := [cell for cell in comparison.records if cell not in matrix.cells]:
        raise UserError(
            f"{path} holds records of another matrix, e.g. of {', '.join(map(str, strange[0]))} "
            "(start, protocol, fraction, seed).\nName the matrix of these records, or make the "
            "file again: --write-records."
        )
    missing = [cell for cell in matrix.cells if cell not in comparison.records]
    if missing and not partial:
        raise UserError(
            f"{path} lacks {len(missing)} of the {len(matrix.cells)} runs of the matrix, e.g. "
            f"{matrix.cells[missing[0]].folder.name}.\nTo show the others anyway: --partial."
        )
    return dataclasses.replace(comparison, missing=missing, published=matrix.published_by_record())


def report(
    matrix: Matrix,
    comparison: Comparison,
    page: str | Path,
    *,
    annotations: Path | None = None,
    image_root: Path | None = None,
    notes: Sequence[str] = (),
    preparation: Sequence[str] = (),
) -> None:
    """Write the HTML page of a matrix.

    Args:
        matrix: what was run.
        comparison: its records, of ``measured`` or ``recorded``. Without its folders, the page has
            neither pictures nor AP over iterations.
        page: the file to write.
        annotations: COCO or LVIS file of the evaluation images; by default that of the data set.
        image_root: folder of these images.
        notes: sentences to add to what is equal and what is not.
        preparation: shell lines that come before the runs.
    """
    cell = next(iter(comparison.records))
    cfg = matrix.config(cell.protocol, cell.fraction)
    cards = matrix.cards()
    commands = repeat_commands(matrix.cells, matrix.output, preparation)
    with tempfile.TemporaryDirectory() as folder:
        own_annotations, own_images = ground_truth_files(cfg, Path(folder))
        write_report(
            page,
            comparison,
            folders={cell: run.folder for cell, run in matrix.cells.items()},
            annotations=annotations or own_annotations,
            image_root=image_root or own_images,
            cards=cards,
            commands=commands,
            notes=notes,
        )


def _protocol_id(path: Path, options: tuple[str, ...]) -> str:
    """Return the protocol id of runs, with what they take from their data if these are here."""
    try:
        return protocol_id(trained_config(path, options))
    except UserError:
        return protocol_id(config_of(path, options))


def _listed(fractions: Sequence[float]) -> str:
    return ", ".join(f"{fraction:g}" for fraction in fractions) or "none"


def _slug(*words: object) -> str:
    return re.sub(r"[^\w.]+", "_", "_".join(map(str, words)).lower())
