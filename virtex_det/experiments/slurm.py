"""Runs as Slurm jobs, through submitit; they continue when the submitting process ends."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from virtex_det.engine.lock import LOCKED, locked
from virtex_det.errors import UserError
from virtex_det.experiments.runs import LOG, Run
from virtex_det.files import check_output_folder
from virtex_det.utils import write_atomically

if TYPE_CHECKING:
    import submitit

JOB_ID = "slurm_job"


class Resources(NamedTuple):
    """The resources of a job.

    Attributes:
        partition: "" for the default one.
        gpus: of one machine, with a process each; 0 for a run on the CPU.
        cpus: cores.
        minutes: time limit; after it a job is queued again and resumes from its last checkpoint.
        memory_gb: 0 for Slurm's default.
        more: further options of sbatch, by name.
    """

    partition: str = ""
    gpus: int = 1
    cpus: int = 8
    minutes: int = 24 * 60
    memory_gb: int = 0
    more: Mapping[str, Any] = {}


class SlurmLauncher:
    """Submits runs to Slurm."""

    def __init__(
        self, folder: Path, resources: Resources, at_once: int = 0, cluster: str = "slurm"
    ) -> None:
        """
        Args:
            folder: of the jobs' scripts and Slurm's own logs; all machines need access to it.
            resources: of each job.
            at_once: jobs in the queue; 0 for all.
            cluster: for submitit: "slurm", or "local" for processes of this machine.

        Raises:
            UserError: submitit or Slurm is missing, a name has a line feed, or the folder cannot
                be written.
        """
        given = {"output": folder.resolve(), "--slurm-partition": resources.partition}
        _check_lines({**given, **resources.more})
        check_output_folder(folder)
        self.at_once, self.resources, self.cluster = at_once or 1000, resources, cluster
        self.executor = _executor(folder.resolve(), resources, cluster)

    def start(self, run: Run) -> "SlurmJob":
        """Submit a run, or return the job of an earlier call that has not ended."""
        path = run.folder / JOB_ID
        job = self._earlier(path)
        if job is not None and not job.done(force_check=True):
            state = f"{run.folder.name} continues as Slurm job {job.job_id}, {job.state}"
            print(f"{state}; to submit it anew, scancel that job and remove {path}")
        else:
            run.folder.mkdir(parents=True, exist_ok=True)
            command = run.command(self.resources.gpus)
            job = self.executor.submit(_Training(command, run.folder / LOG, self.resources.cpus))
            write_atomically(path, job.job_id)
        return SlurmJob(job)

    def _earlier(self, path: Path) -> "submitit.Job | None":
        if self.cluster != "slurm" or not path.exists():
            return None
        import submitit

        return submitit.SlurmJob(self.executor.folder, path.read_text().strip())


class SlurmJob(NamedTuple):
    """A job of Slurm."""

    job: "submitit.Job"

    def is_running(self) -> bool:
        return not self.job.done()

    def failure(self) -> str:
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            self.job.result()
        except (FailedJobError, UncompletedJobError):
            state = f"Slurm job {self.job.job_id} ended as {self.job.state}"
            return f"{state}, its log is {self.job.paths.stderr}"
        return ""

    def let_go(self) -> None:
        """Leave it to Slurm; the next call finds it again."""
        print(f"Slurm job {self.job.job_id} continues; scancel {self.job.job_id} would end it")

    def await_end(self) -> None:
        """Return at once: the job was not asked to end."""


@dataclasses.dataclass(frozen=True)
class _Training:
    """The work of a job."""

    command: list[str]
    log: Path
    cpus: int

    def __call__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(self.cpus), "PYTHONWARNINGS": "ignore"}
        environment |= {LOCKED: str(self.log.parent.resolve())}
        with self.log.open("a") as output, locked(self.log.parent) as lock:
            subprocess.run(
                self.command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                check=True,
                pass_fds=[lock],
            )

    def checkpoint(self) -> "submitit.helpers.DelayedSubmission":
        """Resume after Slurm ended the job for its time limit or for another user's job."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _check_lines(words: Mapping[str, Any]) -> None:
    """Refuse words with line feeds: in a script for sbatch, the next line would be a command."""
    for name, value in words.items():
        if not f"{name}{value}".isprintable():
            raise UserError(
                f"{name} is {str(value)!r}; a job's script allows no line feeds or other control "
                "characters. Rename it."
            )


def _executor(folder: Path, resources: Resources, cluster: str) -> "submitit.AutoExecutor":
    try:
        import cloudpickle
        import submitit
    except ModuleNotFoundError as error:
        raise UserError("--slurm needs submitit: pip install submitit") from error
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster)
    except RuntimeError as error:
        raise UserError(f"Slurm cannot be reached from here: {error}") from error
    # So a job does not import PyTorch to start a process.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    wanted = {
        "name": "virtex_det",
        "timeout_min": resources.minutes,
        "cpus_per_task": resources.cpus,
        "gpus_per_node": resources.gpus,
        "mem_gb": resources.memory_gb,
        "slurm_partition": resources.partition,
        "slurm_additional_parameters": dict(resources.more),
    }
    executor.update_parameters(**{name: value for name, value in wanted.items() if value})
    return executor
