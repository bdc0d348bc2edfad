"""A matrix of starts by fractions of the labels by seeds: pretrained where need be, then fine-tuned alike."""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from virtex_det.benchmark.comparison import Cell, Comparison
from virtex_det.benchmark.records import read_records
from virtex_det.engine.runs import Run, train_all
from virtex_det.engine.setup import load_config
from virtex_det.errors import UserError

_FORM = """Expected:
output: FOLDER
detector: CONFIG
starts:
  NAME: WEIGHTS         # "" for random
  NAME: {pretrain: CONFIG}
fractions: [0.1, 1.0]
seeds: [0, 1, 2]"""


class Matrix(NamedTuple):
    """What is compared; see configs/benchmarks/.

    Attributes:
        title: what the comparison asks.
        output: folder of all its runs.
        detector: config of the fine-tune, the same for all.
        starts: by name, weights or the run that makes them.
        fractions: of the labels.
        seeds: each draws its own labels, order and new layers.
    """

    title: str
    output: Path
    detector: Path
    starts: dict[str, str | Run]
    fractions: tuple[float, ...]
    seeds: tuple[int, ...]

    def pretraining(self) -> list[Run]:
        """Return the runs that make weights."""
        return [start for start in self.starts.values() if isinstance(start, Run)]

    def finetuning(self) -> dict[Cell, Run]:
        """Return the runs that are compared."""
        iterations = load_config(str(self.detector), []).SOLVER.MAX_ITER
        return {
            cell: Run(self.output / _slug(*cell), iterations, self.detector, self._options(cell))
            for start in self.starts
            for fraction in self.fractions
            for cell in (Cell(start, fraction, seed) for seed in self.seeds)
        }

    def _options(self, cell: Cell) -> tuple[str, ...]:
        start = self.starts[cell.start]
        options = {
            "MODEL.WEIGHTS": str(start.folder / "model_final.pth") if isinstance(start, Run) else start,
            "DATASETS.TRAIN_FRACTION": str(float(cell.fraction)),
            "DATASETS.SUBSET_SEED": str(cell.seed),
            "SEED": str(cell.seed),
            "TEST.EVAL_PERIOD": "0",
        }
        return tuple(word for pair in options.items() for word in pair)


def read_matrix(path: str | Path) -> Matrix:
    """Read a matrix; its paths are relative to where the command is started.

    Raises:
        UserError: there is no such file, or it is not of the form.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
        output = Path(content["output"])
        return Matrix(
            title=str(content["title"]),
            output=output,
            detector=Path(content["detector"]),
            starts={str(name): _start(output, str(name), what) for name, what in content["starts"].items()},
            fractions=tuple(map(float, content["fractions"])),
            seeds=tuple(map(int, content["seeds"])),
        )
    except OSError as error:
        raise UserError(f"There is no matrix {path}. Those that come with virtex_det: configs/benchmarks/") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is no matrix: {type(error).__name__} {error}\n{_FORM}") from error


def run_matrix(matrix: Matrix, jobs: int = 0) -> Comparison:
    """Do what is still missing of a matrix, several runs at once, and return what was measured.

    Args:
        matrix: what to run.
        jobs: runs at once, the cores shared out among them; 0 for one per core, 8 at most.

    Raises:
        UserError: a run failed; names its log. What is complete stays, and is not done again.
    """
    jobs = jobs or min(os.cpu_count() or 1, 8)
    for runs in (matrix.pretraining(), list(matrix.finetuning().values())):
        train_all(runs, at_once=jobs)
    return measured(matrix)


def measured(matrix: Matrix) -> Comparison:
    """Return the last record of each of a matrix's runs.

    Raises:
        UserError: runs are missing.
    """
    runs = matrix.finetuning()
    missing = [run.folder.name for run in runs.values() if not run.is_complete()]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(runs)} runs in {matrix.output} are not complete, e.g. {missing[0]}.\n"
            "Do them with: python tools/benchmark.py run"
        )
    return Comparison(matrix.title, {cell: read_records(run.folder)[-1] for cell, run in runs.items()})


def _start(output: Path, name: str, what: Any) -> str | Run:
    if isinstance(what, str):
        return what
    config = Path(what["pretrain"])
    cfg = load_config(str(config), [])
    options = ("DATASETS.TEST", "()")
    return Run(output / "pretrain" / _slug(name), cfg.SOLVER.MAX_ITER, config, options, is_evaluated=False)


def _slug(*words: object) -> str:
    return re.sub(r"[^\w.]+", "_", "_".join(map(str, words)).lower())
