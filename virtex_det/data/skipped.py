"""What training could not use: named, counted and reported at the end, since no broken file may end a long run."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from virtex_det.errors import UserError
from virtex_det.escaping import visible

logger = logging.getLogger(__name__)

# Key of an example under which what was left out on the way to it comes from the loader's worker.
LEFT_OUT = "left_out"
# More broken files in a row than this end a run.
LONGEST_RUN = 100
_SHOWN = 10
_CHECK_THE_DISK = "Check the disk, and that DETECTRON2_DATASETS and the names under DATASETS are what you mean."


class Skipped(NamedTuple):
    """A file, or a sample of a shard, why it was left out, and what to do."""

    name: str
    reason: str
    advice: str = ""


class SkipCountingLoader:
    """A loader's batches without the notes on what was left out; these are kept, and the first ones logged."""

    def __init__(self, batches: Iterable[list[dict[str, Any]]]) -> None:
        """Wrap a loader of batches, some of whose examples have notes under ``LEFT_OUT``."""
        self.batches = batches
        self._names: dict[str, set[str]] = {}

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for batch in self.batches:
            for example in batch:
                for note in example.pop(LEFT_OUT, ()):
                    self._keep(note)
            yield batch

    def report(self) -> dict[str, list[str]]:
        """Return by reason the names of what this process has left out up to now, each once."""
        return {reason: sorted(names) for reason, names in self._names.items()}

    def _keep(self, note: Skipped) -> None:
        names = self._names.setdefault(note.reason, set())
        advice = "" if names or not note.advice else f"\n{note.advice}"
        if note.name in names:
            return
        names.add(note.name)
        total = sum(map(len, self._names.values()))
        if total <= _SHOWN:
            logger.warning("Left out of training: %s (%s)%s", visible(note.name, ""), note.reason, advice)
        if total == _SHOWN:
            logger.warning("What else is left out is counted, and reported at the end")


def together(reports: Iterable[Mapping[str, Iterable[str]]]) -> dict[str, list[str]]:
    """Return by reason the names that any of several reports has, each once, in order."""
    union: dict[str, set[str]] = {}
    for report in reports:
        for reason, names in report.items():
            union.setdefault(reason, set()).update(names)
    return {reason: sorted(names) for reason, names in sorted(union.items())}


def summarise(reports: Iterable[Mapping[str, Iterable[str]]]) -> str:
    """Return what several processes left out as a few lines, "" for nothing."""
    lines = [
        f"  {len(names)} x {reason}: {visible(', '.join(names[:3]), '')}{', ...' if len(names) > 3 else ''}"
        for reason, names in together(reports).items()
    ]
    return "\n".join(["Left out of training:", *lines]) if lines else ""


def check_run(broken: list[Skipped], error: Exception | None = None, advice: str = _CHECK_THE_DISK) -> None:
    """Refuse to go on when too many in a row could not be used; ``error`` is that of the last one, ``advice`` helps."""
    if len(broken) >= LONGEST_RUN:
        last = broken[-1]
        raise UserError(
            f"{len(broken)} images in a row cannot be used, lastly {last.name} ({last.reason}).\n"
            f"This is more than a few broken files. {advice}"
            + (f" What is wrong with the last one:\n{error}" if error else "")
        )
