"""Skipped examples: a long run continues without broken files, and reports them at the end."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from virtex_det.errors import UserError
from virtex_det.escaping import visible

logger = logging.getLogger(__name__)

# Key of an example's notes, by which the loader's worker reports what it skipped.
LEFT_OUT = "left_out"
# This many broken files in a row end a run.
LONGEST_RUN = 100
_SHOWN = 10
_CHECK_THE_DISK = " Check the disk, DETECTRON2_DATASETS and the names under DATASETS."
_OF_THE_DISK = ("image cannot be read", "image file is missing", "image file cannot be opened")


class Skipped(NamedTuple):
    """A skipped file or sample of a shard: its name, the reason, and what to do."""

    name: str
    reason: str
    advice: str = ""


class SkipCountingLoader:
    """A loader's batches without their notes on skipped files, which are counted and logged."""

    def __init__(self, batches: Iterable[list[dict[str, Any]]]) -> None:
        """Wrap a loader of batches with notes under ``LEFT_OUT`` in some examples."""
        self.batches = batches
        self._names: dict[str, set[str]] = {}

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for batch in self.batches:
            for example in batch:
                for note in example.pop(LEFT_OUT, ()):
                    self._keep(note)
            yield batch

    def report(self) -> dict[str, list[str]]:
        """Return by reason the names of what this process has skipped so far, without repeats."""
        return {reason: sorted(names) for reason, names in self._names.items()}

    def _keep(self, note: Skipped) -> None:
        names = self._names.setdefault(note.reason, set())
        advice = "" if names or not note.advice else f"\n{note.advice}"
        if note.name in names:
            return
        names.add(note.name)
        total = sum(map(len, self._names.values()))
        if total <= _SHOWN:
            logger.warning(
                "Left out of training: %s (%s)%s", visible(note.name, ""), note.reason, advice
            )
        if total == _SHOWN:
            logger.warning("Further skipped files are counted, and reported at the end")


def together(reports: Iterable[Mapping[str, Iterable[str]]]) -> dict[str, list[str]]:
    """Return the union of several reports: the sorted names by reason."""
    union: dict[str, set[str]] = {}
    for report in reports:
        for reason, names in report.items():
            union.setdefault(reason, set()).update(names)
    return {reason: sorted(names) for reason, names in sorted(union.items())}


def summarise(reports: Iterable[Mapping[str, Iterable[str]]]) -> str:
    """Return a summary of what several processes skipped, "" for nothing."""
    lines = []
    for reason, names in together(reports).items():
        shown = visible(", ".join(names[:3]), "") + (", ..." if len(names) > 3 else "")
        lines.append(f"  {len(names)} x {reason}: {shown}")
    return "\n".join(["Left out of training:", *lines]) if lines else ""


def check_run(broken: list[Skipped], error: Exception | None = None, advice: str = "") -> None:
    """Raise an error if too many images in a row were broken.

    Args:
        broken: the broken images since the last good one.
        error: error of the last one, with its advice.
        advice: what to check besides; "": the disk, if the last file is missing or damaged.

    Raises:
        UserError: there are LONGEST_RUN of them.
    """
    if len(broken) < LONGEST_RUN:
        return
    last = broken[-1]
    if advice:
        advice = f" {advice}"
    elif last.reason in _OF_THE_DISK:
        advice = _CHECK_THE_DISK
    raise UserError(
        f"{len(broken)} images in a row cannot be used; the last is {visible(last.name, '')} "
        f"({last.reason}).\n"
        f"So many in a row probably have one cause.{advice}"
        + (f" The last one's error:\n{error}" if error else "")
    )
