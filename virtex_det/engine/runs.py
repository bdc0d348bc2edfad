"""Training runs as processes of their own: several at once, behind one progress bar, skipped when complete."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from virtex_det.benchmark.records import read_records
from virtex_det.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run of ``tools/train_net.py``.

    Attributes:
        folder: OUTPUT_DIR.
        iterations: SOLVER.MAX_ITER; a tenth of them are warm-up.
        config: config file.
        options: further ``KEY, VALUE`` words.
        is_evaluated: it is complete when a record of its last iteration is there, too.
    """

    folder: Path
    iterations: int
    config: Path
    options: tuple[str, ...]
    is_evaluated: bool = True

    def command(self) -> list[str]:
        """Return the command line; ``--resume`` starts afresh where there is nothing to go on from."""
        train_net = str(ROOT / "tools" / "train_net.py")
        schedule = ["SOLVER.MAX_ITER", str(self.iterations), "SOLVER.WARMUP_ITERS", str(self.iterations // 10)]
        options = [*self.options, *schedule, "OUTPUT_DIR", str(self.folder)]
        return [sys.executable, train_net, "--resume", "--config-file", str(self.config), *options]

    def done_iterations(self) -> int:
        """Return the last iteration that the run has logged."""
        path = self.folder / "metrics.json"
        lines = path.read_text().splitlines() if path.exists() else []
        return json.loads(lines[-1])["iteration"] + 1 if lines else 0

    def is_complete(self) -> bool:
        """Say whether the final weights are there and, for a run that is evaluated, its last record too."""
        evaluated = not self.is_evaluated or any(
            record.iteration == self.iterations for record in read_records(self.folder)
        )
        return evaluated and (self.folder / "model_final.pth").exists()


def train_all(runs: Sequence[Run], at_once: int) -> None:
    """Run what is not complete behind one progress bar, the machine's cores shared out among the runs at once."""
    missing = [run for run in runs if not run.is_complete()]
    total = sum(run.iterations for run in runs)
    threads = max((os.cpu_count() or 1) // at_once, 1)
    stop = threading.Event()
    with tqdm(total=total, unit="it", desc="training", mininterval=0.5 if sys.stderr.isatty() else 10) as bar:
        bar.update(sum(run.iterations for run in runs if run not in missing))
        bar.start_t, bar.initial = time.time(), bar.n  # the ETA counts what this call does
        with ThreadPoolExecutor(at_once) as pool:
            jobs = [pool.submit(_train_one, run, threads, stop) for run in missing]
            try:
                _watch(bar, runs, jobs)
                for job in jobs:
                    job.result()
            finally:
                stop.set()


def _watch(bar: tqdm, runs: Sequence[Run], jobs: Iterable) -> None:
    while not all(job.done() for job in jobs):
        time.sleep(0.5)
        bar.update(sum(min(run.done_iterations(), run.iterations) for run in runs) - bar.n)
        if any(job.done() and job.exception() for job in jobs):
            return
    bar.update(bar.total - bar.n)


def _train_one(run: Run, threads: int, stop: threading.Event) -> None:
    if stop.is_set():
        return
    run.folder.mkdir(parents=True, exist_ok=True)
    log = run.folder / "stdout.txt"
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    with log.open("a") as output:
        process = subprocess.Popen(run.command(), stdout=output, stderr=subprocess.STDOUT, env=environment)
        while process.poll() is None:
            if stop.wait(0.2):
                process.terminate()
    if process.returncode != 0 and not stop.is_set():
        tail = "\n".join(log.read_text().splitlines()[-8:])
        raise UserError(f"The run {run.folder.name} failed. The end of {log}:\n{tail}")
