"""Runs as processes on this machine, which share its cores and GPUs."""

import dataclasses
import functools
import os
import signal
import subprocess
import sys

from virtex_det.engine.lock import locked
from virtex_det.experiments.runs import LOG, Run
from virtex_det.signals import end_with_parent


class LocalLauncher:
    """Starts runs here."""

    def __init__(self, at_once: int = 0, gpus_per_run: int = 1) -> None:
        """
        Args:
            at_once: how many; 0 for one on each GPU or, without any, one on each core and 8 at most.
            gpus_per_run: processes of a run, where there are GPUs for them.
        """
        self.gpus = visible_gpus()
        self.gpus_per_run = max(min(gpus_per_run, len(self.gpus)), 1)
        cores = os.cpu_count() or 1
        self.at_once = at_once or len(self.gpus) // self.gpus_per_run or min(cores, 8)
        self.threads = max(cores // self.at_once, 1)
        self.jobs: list[LocalJob] = []

    def start(self, run: Run) -> "LocalJob":
        """Start a run in a folder that no other process works in.

        Raises:
            UserError: one does.
        """
        run.folder.mkdir(parents=True, exist_ok=True)
        slot = min(set(range(self.at_once)) - {job.slot for job in self.jobs if job.is_running()})
        environment = os.environ | {
            "OMP_NUM_THREADS": str(self.threads),
            "PYTHONWARNINGS": "ignore",
        }
        with (run.folder / LOG).open("a") as output, locked(run.folder) as lock:
            process = subprocess.Popen(
                run.command(self.gpus_per_run),
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment | self._gpus_of(slot) | run.environment(),
                preexec_fn=functools.partial(end_with_parent, signal.SIGTERM, os.getpid()),
                pass_fds=[
                    lock
                ],  # the folder stays locked as long as the run lives, whatever becomes of this process
            )
        self.jobs.append(LocalJob(process, slot))
        return self.jobs[-1]

    def _gpus_of(self, slot: int) -> dict[str, str]:
        if not self.gpus:
            return {}
        first = slot * self.gpus_per_run
        share = [
            self.gpus[number % len(self.gpus)] for number in range(first, first + self.gpus_per_run)
        ]
        return {"CUDA_VISIBLE_DEVICES": ",".join(dict.fromkeys(share))}


@dataclasses.dataclass(frozen=True)
class LocalJob:
    """A process of this machine, and which share of it the process has."""

    process: subprocess.Popen
    slot: int

    def is_running(self) -> bool:
        return self.process.poll() is None

    def failure(self) -> str:
        status = self.process.returncode
        return (
            f"killed by signal {-status}"
            if status < 0
            else f"exit status {status}"
            if status
            else ""
        )

    def let_go(self) -> None:
        """Ask the run to save and end."""
        if self.is_running():
            print(f"Process {self.process.pid} saves and ends", file=sys.stderr)
            self.process.terminate()

    def await_end(self) -> None:
        """Kill the run when it has not ended within two minutes."""
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def visible_gpus() -> list[str]:
    """Return the GPUs of this machine as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return (named.split(",") if named else [str(number) for number in range(count)])[:count]
