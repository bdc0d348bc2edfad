"""metrics.json: a resumed run has the same lines as an uninterrupted one, except for times."""

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

from virtex_det.utils import write_atomically

WINDOW = 20  # iterations over which logged values are smoothed

# By name of a scalar: whether it is smoothed, and its last values with their iterations.
Recent = dict[str, dict[str, Any]]


class MetricsWriter(EventWriter):
    """Adds to metrics.json a line per iteration with news, as Detectron2's JSONWriter does.

    The file appears with its first line, so that a start that fails leaves none. ``begin`` cuts off what the resumed
    checkpoint does not know of: a half-written line, and the lines of iterations that are about to be done again.
    """

    def __init__(self, path: str | Path) -> None:
        """Write to ``path``, from the iteration that ``begin`` names on."""
        self.path = Path(path)
        self.written: float = -1

    def begin(self, start_iter: int) -> None:
        """Keep the complete lines of iterations before ``start_iter``, and do not write them again."""
        self.written = -1
        if not self.path.exists():
            return
        text = self.path.read_text(errors="replace")
        kept = {
            line: _iteration(line) for line in text.splitlines() if _iteration(line) < start_iter
        }
        whole = "".join(f"{line}\n" for line in kept)
        if whole != text:
            write_atomically(self.path, whole)
        self.written = max(kept.values(), default=-1)

    def write(self) -> None:
        news: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, iteration) in (
            get_event_storage().latest_with_smoothing_hint(WINDOW).items()
        ):
            if iteration > self.written:
                news[iteration][name] = value
        if not news:
            return
        with self.path.open("a") as file:
            for iteration in sorted(news):
                file.write(
                    json.dumps({**news[iteration], "iteration": iteration}, sort_keys=True) + "\n"
                )
            file.flush()
            os.fsync(file.fileno())
        self.written = max(news)


def recent(storage: EventStorage) -> Recent:
    """Return the state on which a storage's next lines depend, as plain values for a checkpoint."""
    found = {}
    for name, smooth in storage.smoothing_hints().items():
        values = storage.history(name).values()[
            -storage.count_samples(name, WINDOW) if smooth else -1 :
        ]
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
