"""Runs as processes of this machine, which share its cores and GPUs."""

import dataclasses
import functools
import os
import signal
import subprocess
import sys

from virtex_det.engine.lock import LOCKED, locked
from virtex_det.experiments.runs import LOG, Run
from virtex_det.signals import end_with_parent


class LocalLauncher:
    """Starts runs here."""

    def __init__(self, at_once: int = 0, gpus_per_run: int = 1) -> None:
        """
        Args:
            at_once: number of parallel runs; 0 for one per GPU or, without GPUs, one per core and
                8 at most.
            gpus_per_run: processes of a run, at most the number of GPUs.
        """
        self.gpus = visible_gpus()
        self.gpus_per_run = max(min(gpus_per_run, len(self.gpus)), 1)
        cores = os.cpu_count() or 1
        self.at_once = at_once or len(self.gpus) // self.gpus_per_run or min(cores, 8)
        self.threads = max(cores // self.at_once, 1)
        self.jobs: list[LocalJob] = []

    def start(self, run: Run) -> "LocalJob":
        """Start a run.

        Raises:
            UserError: another process works in its folder.
        """
        run.folder.mkdir(parents=True, exist_ok=True)
        slot = min(set(range(self.at_once)) - {job.slot for job in self.jobs if job.is_running()})
        environment = os.environ | self._gpus_of(slot)
        environment |= {"OMP_NUM_THREADS": str(self.threads), "PYTHONWARNINGS": "ignore"}
        environment |= {"LOKY_MAX_CPU_COUNT": str(self.threads)}  # processes that fit SVMs
        environment |= {LOCKED: str(run.folder.resolve())}
        with (run.folder / LOG).open("a") as output, locked(run.folder) as lock:
            process = subprocess.Popen(
                run.command(self.gpus_per_run),
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                preexec_fn=functools.partial(end_with_parent, signal.SIGTERM, os.getpid()),
                # The folder stays locked as long as the run lives, even if this process ends.
                pass_fds=[lock],
            )
        self.jobs.append(LocalJob(process, slot))
        return self.jobs[-1]

    def _gpus_of(self, slot: int) -> dict[str, str]:
        if not self.gpus:
            return {}
        first = slot * self.gpus_per_run
        numbers = range(first, first + self.gpus_per_run)
        share = dict.fromkeys(self.gpus[number % len(self.gpus)] for number in numbers)
        return {"CUDA_VISIBLE_DEVICES": ",".join(share)}


@dataclasses.dataclass(frozen=True)
class LocalJob:
    """A process of this machine, and its share of the machine."""

    process: subprocess.Popen
    slot: int

    def is_running(self) -> bool:
        return self.process.poll() is None

    def failure(self) -> str:
        status = self.process.returncode
        if status < 0:
            return f"killed by signal {-status}"
        return f"exit status {status}" if status else ""

    def let_go(self) -> None:
        """Ask the run to save a checkpoint and end."""
        if self.is_running():
            print(f"Process {self.process.pid} saves and ends", file=sys.stderr)
            self.process.terminate()

    def await_end(self) -> None:
        """Wait for the run; kill it after two minutes."""
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def visible_gpus() -> list[str]:
    """Return the GPUs of this machine by their names in CUDA_VISIBLE_DEVICES."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return (named.split(",") if named else [str(number) for number in range(count)])[:count]
