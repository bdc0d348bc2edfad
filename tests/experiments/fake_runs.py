"""Runs whose training is a line of Python."""

import dataclasses
import sys
from pathlib import Path

from virtex_det.experiments.runs import Run

FINISH = "pathlib.Path('model_final.pth').touch()"


def wait_until(condition: str) -> str:
    """Return a line of a run that goes on when a condition holds, or after five minutes."""
    return f"for _ in range(15_000):\n    if {condition}: break\n    time.sleep(0.02)"


@dataclasses.dataclass(frozen=True)
class FakeRun(Run):
    """A run of Python lines in its folder; what it prints goes where a run's words go."""

    lines: tuple[str, ...] = (FINISH,)

    def command(self, gpus: int = 1) -> list[str]:
        lines = ("import os, pathlib, sys, time", f"os.chdir({str(self.folder)!r})", *self.lines)
        return [sys.executable, "-c", "\n".join(lines)]


def fake_run(folder: Path, *lines: str, after: Run | None = None) -> FakeRun:
    """Return a run of the lines given, which by default is complete at once."""
    return FakeRun(folder, Path("config.yaml"), (), 4, after=after, lines=lines or (FINISH,))
