"""metrics.json: a resumed run has the same lines as an uninterrupted one, except for times."""

import json
import logging
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

from virtex_det.utils import write_atomically

logger = logging.getLogger(__name__)

WINDOW = 20  # iterations over which logged values are smoothed

# By name of a scalar: whether it is smoothed, and its last values with their iterations.
Recent = dict[str, dict[str, Any]]


class MetricsWriter(EventWriter):
    """Adds a line to metrics.json for each iteration with new values, as Detectron2's JSONWriter.

    The file appears with its first line, so a start that fails leaves no file. ``begin`` removes
    what came after the resumed checkpoint: an incomplete line, and lines of iterations that are
    repeated.
    """

    def __init__(self, path: str | Path) -> None:
        """Write to ``path``, starting at the iteration that ``begin`` is called with."""
        self.path = Path(path)
        self.written: float = -1

    def begin(self, start_iter: int) -> None:
        """Keep the complete lines of iterations before ``start_iter``; do not repeat them.

        Warn if some are missing, as in a folder that was copied while its run was training.
        """
        self.written = -1
        if self.path.exists():
            self._keep_before(start_iter)
        if self.written < start_iter - 1 - WINDOW:
            logger.warning(
                "%s ends with iteration %d, and the run goes on with %d: the lines between are "
                "lost. Was the folder copied while the run was training? The training itself goes "
                "on as it was",
                self.path,
                self.written,
                start_iter,
            )

    def _keep_before(self, start_iter: int) -> None:
        text = self.path.read_text(errors="replace")
        kept = {
            line: _iteration(line) for line in text.splitlines() if _iteration(line) < start_iter
        }
        whole = "".join(f"{line}\n" for line in kept)
        if whole != text:
            write_atomically(self.path, whole)
        self.written = max(kept.values(), default=-1)

    def write(self) -> None:
        rows: dict[int, dict[str, float]] = defaultdict(dict)
        latest = get_event_storage().latest_with_smoothing_hint(WINDOW)
        for name, (value, iteration) in latest.items():
            if iteration > self.written:
                rows[iteration][name] = value
        if not rows:
            return
        with self.path.open("a") as file:
            for iteration in sorted(rows):
                row = {**rows[iteration], "iteration": iteration}
                file.write(json.dumps(row, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.written = max(rows)


def recent(storage: EventStorage) -> Recent:
    """Return the state on which a storage's next lines depend, as plain values for a checkpoint."""
    found = {}
    for name, smooth in storage.smoothing_hints().items():
        number = storage.count_samples(name, WINDOW) if smooth else 1
        values = storage.history(name).values()[-number:]
        found[name] = {
            "smooth": smooth,
            "values": [(float(value), int(iteration)) for value, iteration in values],
        }
    return found


def restore(storage: EventStorage, values: Recent) -> None:
    """Restore the result of ``recent`` in a storage."""
    for name, scalar in values.items():
        for value, iteration in scalar["values"]:
            storage.put_scalar(name, value, smoothing_hint=scalar["smooth"], cur_iter=iteration)


def _iteration(line: str) -> float:
    """Return the iteration of a line, infinity for an incomplete line."""
    try:
        return int(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return float("inf")
