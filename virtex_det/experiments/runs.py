"""Runs as separate processes, several in parallel behind one progress bar."""

import dataclasses
import json
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from virtex_det.benchmark.records import ResultRecord, read_records, sha256_of
from virtex_det.config.identity import config_sha256
from virtex_det.errors import UserError
from virtex_det.plugins import import_words
from virtex_det.yaml_files import read_yaml
from virtex_det_commands import own_command

LOG = "stdout.txt"
RECORDS = "results.jsonl"
_LOG_END = 4096  # bytes of a log that are searched for what its run does
# Lines of a run's log that begin or end something other than training steps.
_DOING: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"iter: \d+ |training: \d+ of \d+ done", lambda line: ""),
    (r"Loading |Loaded \d", lambda line: "loading"),
    (r"Running precise-BN", lambda line: "precise batch norm"),
    (r"Saving checkpoint", lambda line: "saving"),
    (r"Start inference on (\d+) batches", lambda line: f"evaluating 0/{line[1]}"),
    (
        r"Inference done (\d+/\d+)\..*ETA=([\d:]+)",
        lambda line: f"evaluating {line[1]}, {line[2]} left",
    ),
    (r"Total inference time|Measuring \d", lambda line: "measuring"),
    (r"features of .*?: +(\d+%)", lambda line: f"reading features {line[1]}"),
    (r"SVMs: +(\d+%)", lambda line: f"fitting SVMs {line[1]}"),
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One training of ``tools/train_net.py``, or one probe of ``tools/probe.py svm``.

    Attributes:
        folder: OUTPUT_DIR.
        config: config file.
        options: further ``KEY, VALUE`` words.
        iterations: of its schedule; None for a probe, which trains no network.
        dataset: evaluated on; a complete run has a record of its last iteration on it. "" for a run
            without evaluation.
        after: the run whose weights it starts from.
    """

    folder: Path
    config: Path
    options: tuple[str, ...]
    iterations: int | None
    dataset: str = ""
    after: "Run | None" = None

    @property
    def is_probe(self) -> bool:
        """Whether the run fits linear SVMs to frozen features."""
        return self.iterations is None

    @property
    def script(self) -> str:
        """The name of the script in tools/."""
        return "probe" if self.is_probe else "train_net"

    def arguments(self, gpus: int = 1) -> list[str]:
        """Return the arguments of the script; ``--resume`` starts an empty folder.

        The run imports the plugins of this process.

        Args:
            gpus: of a training, with a process each; a probe has one process.
        """
        words = ["svm"] if self.is_probe else []
        if gpus > 1 and not self.is_probe:
            words += ["--num-gpus", str(gpus)]
        words += [*import_words(), "--resume", "--config-file", str(self.config)]
        return [*words, *self.options, "OUTPUT_DIR", str(self.folder)]

    def command(self, gpus: int = 1) -> list[str]:
        """Return the command line with this Python; ``gpus`` as of ``arguments``."""
        return own_command(self.script, *self.arguments(gpus))

    def done_iterations(self) -> int:
        """Return the last iteration that the run has logged, 0 for a probe."""
        if self.iterations is None:
            return 0
        path = self.folder / "metrics.json"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return min(_iteration(lines[-1]), self.iterations) if lines else 0

    def record(self) -> ResultRecord | None:
        """Return the record of the last iteration, None if there is none.

        Raises:
            UserError: the folder's records are damaged.
        """
        records = read_records(self.folder)
        hashes = self._config_hashes() if records else ()
        for record in reversed(records):
            is_last = (record.dataset, record.iteration) == (self.dataset, self.iterations)
            if is_last and self._is_own(record, hashes):
                return record
        return None

    def _config_hashes(self) -> tuple[str, ...]:
        """Return the hashes of the run's config: of its text, for earlier records, and today's."""
        path = self.folder / "config.yaml"
        if not path.exists():
            return ()
        whole = sha256_of(path.read_text(errors="replace"))
        try:
            content = read_yaml(path)
        except UserError:
            return (whole,)
        return (whole, config_sha256(content)) if isinstance(content, dict) else (whole,)

    def _is_own(self, record: ResultRecord, hashes: Sequence[str]) -> bool:
        """Return whether a record is of this run's config and model, not of another evaluation."""
        if not hashes or record.config_sha256 == hashes[0]:
            return True
        evaluated = record.evaluated.get("path")
        is_of_folder = not evaluated or Path(evaluated).resolve().parent == self.folder.resolve()
        return record.config_sha256 in hashes and is_of_folder

    def final_record(self) -> ResultRecord | None:
        """Return ``record()`` of a run with its final weights, None if either is missing.

        A probe leaves no weights.
        """
        return self.record() if self.is_probe or self._has_weights() else None

    def is_finished(self) -> bool:
        """Return whether the final weights exist and, for an evaluated run, its last record."""
        return self.final_record() is not None or (not self.dataset and self._has_weights())

    def _has_weights(self) -> bool:
        return (self.folder / "model_final.pth").exists()

    def doing(self) -> str:
        """Return the run's phase by the end of its log; "" for training or an empty log."""
        path = self.folder / LOG
        if not path.exists():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_END))
            end = file.read().decode(errors="replace")
        found = [(0, "")]
        for pattern, what in _DOING:
            found += [(match.start(), what(match)) for match in re.finditer(pattern, end)]
        return max(found)[1]

    def log_tail(self) -> str:
        """Return the last lines that the run printed."""
        path = self.folder / LOG
        lines = ["(it has printed nothing)"]
        if path.exists():
            lines = path.read_text(errors="replace").splitlines()
        return "\n".join(f"  {line[:160]}" for line in lines[-6:])


class Job(Protocol):
    """A started run."""

    def is_running(self) -> bool:
        """Return whether the run is running or waits in a queue."""

    def failure(self) -> str:
        """Return why an ended job failed, "" if it did not."""

    def let_go(self) -> None:
        """Ask a job to end; return at once."""

    def await_end(self) -> None:
        """Wait for a job that was asked to end."""


class Launcher(Protocol):
    """Where runs are executed, and how many in parallel."""

    at_once: int

    def start(self, run: Run) -> Job:
        """Begin a run."""


def train_all(
    runs: Sequence[Run], launcher: Launcher, on_done: Callable[[Run], None] = lambda run: None
) -> None:
    """Do the runs that are not complete, each as soon as the weights of its start exist.

    A run that fails stops only the runs that start from its weights.

    Args:
        runs: those to do.
        launcher: where.
        on_done: called with each run that has been completed.

    Raises:
        UserError: runs failed; with the ends of their logs.
    """
    waiting = [run for run in runs if not is_done(run)]
    working: dict[Run, Job] = {}
    failed: dict[Run, str] = {}
    with _Progress(runs, waiting) as progress:
        try:
            while waiting or working:
                unfinished = {*working, *waiting}
                ready = [run for run in waiting if run.after not in unfinished]
                for run in ready[: launcher.at_once - len(working)]:
                    waiting.remove(run)
                    working[run] = launcher.start(run)
                time.sleep(0.5)
                progress.update(working)
                for run, failure in _ended(working):
                    if failure:
                        failed[run] = failure
                    else:
                        on_done(run)
                waiting = [run for run in waiting if run.after not in failed]
        finally:
            for job in working.values():
                job.let_go()
            for job in working.values():
                job.await_end()
    if failed:
        raise UserError(_what_failed(failed))


def is_done(run: Run) -> bool:
    """Return whether a run is complete; damaged records are renamed and made again."""
    try:
        return run.is_finished()
    except UserError as error:
        aside = run.folder / f"{RECORDS}.damaged"
        (run.folder / RECORDS).replace(aside)
        print(
            f"{error}\nThe records are now in {aside}, and the run is evaluated again.",
            file=sys.stderr,
        )
        return False


def _ended(working: dict[Run, Job]) -> Iterator[tuple[Run, str]]:
    """Remove the jobs that have ended, and yield why each failed; "" if it did not."""
    for run in [run for run, job in working.items() if not job.is_running()]:
        failure = working.pop(run).failure()
        if not failure and not is_done(run):
            failure = "ended without its weights or its record"
        yield run, failure


class _Progress:
    """A bar over the iterations of all runs."""

    def __init__(self, runs: Sequence[Run], missing: Collection[Run]) -> None:
        self.done = {run: run.iterations or 0 for run in runs}
        self.done |= {run: run.done_iterations() for run in missing}
        self.shown, self.next_words = "", 0.0

    def __enter__(self) -> "_Progress":
        self.bar = tqdm(
            total=sum(run.iterations or 0 for run in self.done),
            initial=sum(self.done.values()),  # without which the ETA would count earlier work
            unit="it",
            desc="training",
            mininterval=0.5 if sys.stderr.isatty() else 10,
        )
        return self

    def update(self, working: Collection[Run]) -> None:
        self.done |= {run: run.done_iterations() for run in working}
        self.bar.update(sum(self.done.values()) - self.bar.n)
        self._show([(run, doing) for run in working if (doing := run.doing())])

    def _show(self, doing: Sequence[tuple[Run, str]]) -> None:
        """Show behind the bar what runs do besides training; every ten seconds without terminal."""
        shown = [f"{run.folder.name} {what}" for run, what in doing[:2]]
        more = [f"and {len(doing) - 2} more"] if len(doing) > 2 else []
        text = "; ".join(shown + more)
        if text != self.shown and time.monotonic() >= self.next_words:
            self.shown, self.next_words = text, time.monotonic() + self.bar.mininterval
            self.bar.set_postfix_str(text)

    def __exit__(self, *_: object) -> None:
        self.bar.close()


def _what_failed(failed: dict[Run, str]) -> str:
    runs = "1 run" if len(failed) == 1 else f"{len(failed)} runs"
    lines = [f"{runs} failed. Complete runs stay; the same command does only the missing ones."]
    for run, what in list(failed.items())[:3]:
        lines.append(f"{run.folder.name}: {what}; the end of {run.folder / LOG}:")
        lines.append(run.log_tail())
    if others := [run.folder.name for run in list(failed)[3:]]:
        lines.append(f"and: {', '.join(others)}")
    return "\n".join(lines)


def _iteration(line: str) -> int:
    try:
        return int(json.loads(line)["iteration"]) + 1
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0  # the line is being written, or damaged
