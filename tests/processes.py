"""Commands and groups of processes that need not import PyTorch and Detectron2, to save seconds.

Each is forked from a fresh server process that has imported them. Tests of how a process starts or
ends start Python instead.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.reduction import DupFd
from pathlib import Path
from unittest import mock

import torch

from virtex_det.data.datasets import register_builtin_datasets
from virtex_det.engine.processes import launch_processes as launch_spawned

ROOT = Path(__file__).resolve().parents[1]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.processes", "virtex_det.inference", "virtex_det.evaluation"])


def run_script(
    script: str | Path,
    *words: object,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a Python script as ``python script words`` does; return its exit code and output.

    Args:
        script: its path; a relative one is from the repository's root.
        words: of its command line.
        cwd: the folder to run it in; by default the current one.
        env: its environment; by default this process's. DETECTRON2_DATASETS affects virtex_det's
            data sets, but not Detectron2's.
    """
    argv = [str(script), *map(str, words)]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        surroundings = _Surroundings(output.fileno(), errors.fileno(), cwd, env)
        process = SERVER.Process(target=_run_script, args=(surroundings, argv))
        process.start()
        process.join()
        printed = []
        for file in (output, errors):
            file.seek(0)
            printed.append(file.read().decode())
    return subprocess.CompletedProcess(argv, process.exitcode, *printed)


def launch_processes(function: Callable[..., object], *args: object, processes: int) -> None:
    """Do the same as ``virtex_det.engine.processes.launch_processes``, with forked processes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(torch.multiprocessing, "start_processes", _start_processes),
    ):
        # A port that is free now may not be when the processes meet at it.
        store = f"file://{folder}/store"
        launch_spawned(function, *args, processes=processes, dist_url=store)


class _Surroundings:
    """What a process has from the one that starts it."""

    def __init__(
        self,
        output: int = 1,
        errors: int = 2,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.files = (output, errors)
        self.folder = str(cwd or Path.cwd())
        self.environment = dict(os.environ if env is None else env)
        self.start_method = multiprocessing.get_start_method()

    def __getstate__(self) -> dict[str, object]:
        return vars(self) | {"files": [DupFd(file) for file in self.files]}

    def take(self) -> None:
        for file, own in zip(self.files, (1, 2), strict=True):
            os.dup2(file.detach(), own)
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)
        # It would start a server of its own, of which kills leave the workers behind.
        multiprocessing.set_start_method(self.start_method, force=True)


def _run_script(surroundings: _Surroundings, argv: list[str]) -> None:
    imported_with = os.environ.get("DETECTRON2_DATASETS")
    surroundings.take()
    root = os.environ.get("DETECTRON2_DATASETS")
    if root and root != imported_with:  # it is read at import
        register_builtin_datasets(root)
    sys.argv = argv
    with _ended_as_python_ends():
        runpy.run_path(str(ROOT / argv[0]), run_name="__main__")


def _start_processes(function: Callable[..., object], args: tuple, **options: object) -> None:
    _spawn(_run_forked, (_Surroundings(), function, *args), start_method="forkserver", **options)


_spawn = torch.multiprocessing.start_processes


def _run_forked(
    rank: int, surroundings: _Surroundings, function: Callable[..., object], *args: object
) -> None:
    surroundings.take()
    # The parent of a forked process is the server.
    os.getppid = lambda: multiprocessing.parent_process().pid
    with _ended_as_python_ends():
        function(rank, *args)


@contextmanager
def _ended_as_python_ends() -> Iterator[None]:
    """End threads and run exit functions, which a forked process skips; workers would not end."""
    try:
        yield
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
