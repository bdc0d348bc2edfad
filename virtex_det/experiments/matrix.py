"""A matrix of starts, protocols, fractions of labels and seeds, with the pretraining it needs."""

import dataclasses
import difflib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from virtex_det.benchmark.comparison import Cell, Comparison, read_comparison
from virtex_det.benchmark.report import write_report
from virtex_det.benchmark.statistics import share
from virtex_det.config.files import CONFIGS
from virtex_det.config.roles import OF_MATRIX
from virtex_det.errors import UserError
from virtex_det.experiments.local import LocalLauncher
from virtex_det.experiments.preflight import check_folders, check_sources, check_weights, config_of
from virtex_det.experiments.runs import Launcher, Run, is_complete, train_all
from virtex_det.protocols.card import protocol_card
from virtex_det_commands import as_called

_LONGEST = 200  # bytes of the names of a start and a protocol


class Pretraining(NamedTuple):
    """A start that is made by pretraining.

    Attributes:
        config: of the pretraining.
        seed: of the one that serves all seeds; None pretrains once per seed.
        options: further config keys.
    """

    config: Path
    seed: int | None = None
    options: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class Matrix:
    """What is compared; see configs/benchmarks/.

    Attributes:
        title: what the comparison asks.
        output: folder of all its runs.
        protocols: configs of the fine-tunes, by name.
        starts: by name, weights ("" for random) or the pretraining that makes them.
        fractions: of the labels.
        seeds: each draws its own labels, order and new layers.
        baseline: the start that the others are compared with; "" for none.
        options: config keys of all fine-tunes.
    """

    title: str
    output: Path
    protocols: Mapping[str, Path]
    starts: Mapping[str, str | Pretraining]
    fractions: tuple[float, ...]
    seeds: tuple[int, ...]
    baseline: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        named: dict[str, Sequence[object]] = {"fractions": self.fractions, "seeds": self.seeds}
        named |= {what: [_slug(name) for name in names] for what, names in self._names().items()}
        named["folders"] = [
            _slug(start, protocol) for start in self.starts for protocol in self.protocols
        ]
        if long := [name for name in named["folders"] if len(str(name).encode()) > _LONGEST]:
            raise UserError(
                f"The matrix has names that are too long for a folder, e.g. {long[0]:.100}... Shorten them."
            )
        for what, values in named.items():
            if not values or len(set(values)) < len(values):
                raise UserError(
                    f"The matrix has no {what}, or one of them twice: {', '.join(map(str, values))}"
                )
        if wrong := [fraction for fraction in self.fractions if not 0 < fraction <= 1]:
            raise UserError(
                f"A fraction of the labels is above 0 and at most 1, and the matrix has {wrong[0]}."
            )
        if self.baseline and self.baseline not in self.starts:
            nearest = difflib.get_close_matches(self.baseline, self.starts, n=1, cutoff=0) or [""]
            raise UserError(
                f"The baseline {self.baseline!r} is none of the starts; the nearest: {nearest[0]}"
            )
        made = [start for start in self.starts.values() if isinstance(start, Pretraining)]
        own = [key for key in self.options if key in OF_MATRIX]
        if own := own + [
            key for start in made for key in start.options if key in ("SEED", "OUTPUT_DIR")
        ]:
            raise UserError(
                f"{own[0]} under options: a matrix sets it itself, from starts, fractions, seeds and output."
            )

    @cached_property
    def cells(self) -> dict[Cell, Run]:
        """The runs that are compared."""
        return {
            cell: self._finetuning(cell)
            for start in self.starts
            for protocol in self.protocols
            for fraction in self.fractions
            for cell in (Cell(start, protocol, float(fraction), seed) for seed in self.seeds)
        }

    def pretraining(self) -> list[Run]:
        """Return the runs that make weights."""
        return list(dict.fromkeys(run.after for run in self.cells.values() if run.after))

    def config(self, protocol: str, fraction: float = 1.0) -> CfgNode:
        """Return the config of a protocol's fine-tunes, without what differs from cell to cell."""
        return config_of(self.protocols[protocol], self._shared_options(fraction))

    def cards(self) -> dict[str, dict[str, str]]:
        """Return what each protocol is, in words."""
        return {name: protocol_card(self.config(name)) for name in self.protocols}

    def commands(self) -> dict[str, list[str]]:
        """Return the commands behind each row: of its pretraining, then of its fine-tunes, seed by seed."""
        lines: dict[str, dict[str, None]] = {}
        for cell, run in self.cells.items():
            protocol = f", {cell.protocol}" if len(self.protocols) > 1 else ""
            row = lines.setdefault(
                f"{cell.start}{protocol}, {share(cell.fraction)} of the labels", {}
            )
            row |= {_command_line(each): None for each in (run.after, run) if each}
        return {heading: list(row) for heading, row in lines.items()}

    def _finetuning(self, cell: Cell) -> Run:
        start = self.starts[cell.start]
        after = (
            self._pretraining(cell.start, start, cell.seed)
            if isinstance(start, Pretraining)
            else None
        )
        weights = str(after.folder / "model_final.pth") if after else str(start)
        own = _words(
            {"MODEL.WEIGHTS": weights, "DATASETS.SUBSET_SEED": cell.seed, "SEED": cell.seed}
        )
        options = own + self._shared_options(cell.fraction)
        cfg = self.config(cell.protocol, cell.fraction)
        dataset = next(iter(cfg.DATASETS.TEST), "")
        folder = self.output / _slug(*cell)
        return Run(
            folder, self.protocols[cell.protocol], options, cfg.SOLVER.MAX_ITER, dataset, after
        )

    def _shared_options(self, fraction: float) -> tuple[str, ...]:
        return _words(
            {"DATASETS.TRAIN_FRACTION": fraction, "TEST.EVAL_PERIOD": 0} | dict(self.options)
        )

    def _pretraining(self, name: str, start: Pretraining, seed: int) -> Run:
        seed = seed if start.seed is None else start.seed
        options = _words({"DATASETS.TEST": ()} | dict(start.options))
        iterations = config_of(start.config, options).SOLVER.MAX_ITER
        folder = self.output / "pretrain" / _slug(name, seed)
        return Run(folder, start.config, ("SEED", str(seed), *options), iterations)

    def _names(self) -> dict[str, Iterable[str]]:
        return {"starts": self.starts, "protocols": self.protocols}


def run_matrix(matrix: Matrix, launcher: Launcher | None = None) -> Comparison:
    """Do what is still missing of a matrix, several runs at once, and return what was measured.

    Args:
        matrix: what to run.
        launcher: where; by default on this machine.

    Raises:
        UserError: something in the matrix cannot be meant, or runs failed; with the ends of their logs. What is
            complete stays, and is not done again.
    """
    check_weights({name: start for name, start in matrix.starts.items() if isinstance(start, str)})
    check_folders([*matrix.cells.values(), *matrix.pretraining()])
    missing = [run for run in matrix.cells.values() if not is_complete(run)]
    needed = {run.after for run in missing}
    pretraining = [run for run in matrix.pretraining() if run in needed and not is_complete(run)]
    check_sources([*pretraining, *missing])
    train_all(in_order(matrix.cells.values(), pretraining), launcher or LocalLauncher())
    return measured(matrix, mix=True)


def in_order(cells: Iterable[Run], pretraining: Sequence[Run]) -> list[Run]:
    """Return what can begin at once, then each pretraining with its cells, so that whole curves are done early."""
    cells = list(cells)
    runs = [run for run in cells if run.after not in pretraining]
    for weights in pretraining:
        runs += [weights, *(run for run in cells if run.after == weights)]
    return runs


def measured(matrix: Matrix, *, mix: bool = False, partial: bool = False) -> Comparison:
    """Return the record of the last iteration of each of a matrix's runs.

    Args:
        matrix: what was run.
        mix: compare several protocols.
        partial: take what there is.

    Raises:
        UserError: runs are missing, or are not the matrix's own, or their records do not compare.
    """
    check_folders([*matrix.cells.values(), *matrix.pretraining()])
    found = {cell: run.record() for cell, run in matrix.cells.items() if run.is_complete()}
    missing = [cell for cell in matrix.cells if cell not in found]
    if missing and not (partial and found):
        raise UserError(
            f"{len(missing)} of the {len(matrix.cells)} runs in {matrix.output} are not complete, e.g. "
            f"{matrix.cells[missing[0]].folder.name}.\nDo them with: python tools/benchmark.py run"
        )
    records = {cell: record for cell, record in found.items() if record}
    for cell, record in records.items():
        if (record.train_fraction, record.subset_seed, record.seed) != (
            cell.fraction,
            cell.seed,
            cell.seed,
        ):
            raise UserError(
                f"{matrix.cells[cell].folder} holds a record of {share(record.train_fraction)} of the labels and seed "
                f"{record.seed}, not its own. Move that folder away and do the run again."
            )
    return Comparison(matrix.title, matrix.baseline, records, mix)


def recorded(
    matrix: Matrix, path: str | Path, *, mix: bool = False, partial: bool = False
) -> Comparison:
    """Return what ``Comparison.write_records`` has kept of a matrix's runs.

    Raises:
        UserError: the records are of another matrix, some are missing and ``partial`` is False, or they do not compare.
    """
    comparison = read_comparison(path, matrix.title, matrix.baseline, mix=mix)
    if strange := [cell for cell in comparison.records if cell not in matrix.cells]:
        raise UserError(
            f"{path} holds records of another matrix, e.g. of {', '.join(map(str, strange[0]))} (start, protocol, "
            "fraction, seed).\nName the matrix that they are of, or make the file again: --write-records."
        )
    if (
        missing := [cell for cell in matrix.cells if cell not in comparison.records]
    ) and not partial:
        raise UserError(
            f"{path} lacks {len(missing)} of the {len(matrix.cells)} runs of the matrix, e.g. "
            f"{matrix.cells[missing[0]].folder.name}.\nTo see what there is: --partial."
        )
    return comparison


def report(
    matrix: Matrix,
    page: str | Path,
    *,
    mix: bool = False,
    annotations: Path | None = None,
    image_root: Path | None = None,
    notes: Sequence[str] = (),
    preparation: Sequence[str] = (),
) -> None:
    """Write the HTML page of a matrix that has been run.

    Args:
        matrix: what was run.
        page: the file to write.
        mix: compare several protocols.
        annotations: COCO or LVIS file of the evaluation images; by default that of the data set.
        image_root: folder of these images.
        notes: sentences to add to what is equal and what is not.
        preparation: shell lines that come before the runs.
    """
    comparison = measured(matrix, mix=mix)
    dataset = next(iter(comparison.records.values())).dataset
    write_report(
        page,
        comparison,
        folders={cell: run.folder for cell, run in matrix.cells.items()},
        annotations=annotations or _existing(dataset, "json_file"),
        image_root=image_root or _existing(dataset, "image_root"),
        cards=matrix.cards(),
        commands=portable(
            ({"data and vocabulary": list(preparation)} if preparation else {}) | matrix.commands(),
            matrix.output,
        ),
        notes=notes,
    )


def portable(commands: Mapping[str, list[str]], output: Path) -> dict[str, list[str]]:
    """Return shell lines that name a folder outside the working folder as ``$OUTPUT``.

    Args:
        commands: lines by what they make.
        output: folder of the runs.
    """
    if not output.is_absolute() or output.is_relative_to(Path.cwd()):
        return dict(commands)
    found: dict[str, list[str]] = {}
    for row, lines in commands.items():
        found[row] = [
            " ".join(_portable_word(word, output) for word in shlex.split(line)) for line in lines
        ]
    name = shlex.quote(output.name)
    return {"folder of the runs": [f"export OUTPUT={name}  # or another folder"]} | found


def _portable_word(word: str, output: Path) -> str:
    """Quote a word for a shell, with ``$OUTPUT`` for the folder wherever a path in it begins so."""
    parts = re.split(rf"(?<![\w.~/-]){re.escape(str(output))}(?=/)", word)
    if len(parts) == 1:
        return shlex.quote(word)
    if shlex.quote(word) == word:
        return "$OUTPUT".join(parts)
    escaped = [re.sub(r'[$`"\\]', r"\\\g<0>", part) for part in parts]
    return '"' + "$OUTPUT".join(escaped) + '"'


def _existing(dataset: str, what: str) -> Path | None:
    path = Path(str(MetadataCatalog.get(dataset).get(what, "")))
    return path if str(path) != "." and path.exists() else None


def _command_line(run: Run) -> str:
    words = [word.removeprefix(f"{CONFIGS.parent}/") for word in run.arguments()]
    return as_called(f"python tools/train_net.py {shlex.join(words)}")


def _words(options: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(word) for pair in options.items() for word in pair)


def _slug(*words: object) -> str:
    return re.sub(r"[^\w.]+", "_", "_".join(map(str, words)).lower())
