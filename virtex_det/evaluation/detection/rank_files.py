"""The results of every rank on disk, until the main process merges them."""

import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from detectron2.utils import comm

from virtex_det.errors import UserError
from virtex_det.utils import replacing


class RankOutput(NamedTuple):
    """The files of one rank; only paths and counts go over the network to the main process."""

    entries: Path
    states: dict[str, Path]  # by task
    counts: dict[str, int]


class RankFiles:
    """The folder of one evaluation, with a growing file of detections per rank.

    Detections are neither kept in memory nor gathered over the network, so all processes must share
    the output folder.
    """

    def __init__(self, output_folder: Path) -> None:
        """Open this rank's file (a collective call); remove folders of interrupted evaluations."""
        root = output_folder / "unmerged"
        # The main process chooses a unique name, so that no file of an earlier evaluation is read.
        self.folder = root / comm.all_gather(uuid.uuid4().hex)[0]
        if comm.is_main_process() and root.exists():
            _remove(folder for folder in root.iterdir() if folder != self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = f"rank_{comm.get_rank()}"
        self.file = (self.folder / f"{self.name}.json").open("wb")

    def add(self, entries: Iterable[dict[str, Any]]) -> None:
        """Write entries of a results file."""
        text = orjson.dumps(list(entries))[1:-1]
        if text:
            self.file.write(b",\n" + text if self.file.tell() else text)

    def close(self, states: Mapping[str, bytes], counts: Mapping[str, int]) -> list[RankOutput]:
        """Close this rank's files, in a collective call.

        Args:
            states: state of each metric, by task.
            counts: any counts, by name.

        Returns:
            The files of all ranks on the main process; an empty list on others.

        Raises:
            UserError: the main process does not see the file of another rank.
        """
        self.file.close()
        paths = {task: self.folder / f"{self.name}_{task}.state" for task in states}
        for task, path in paths.items():
            path.write_bytes(states[task])
        parts = comm.gather(RankOutput(Path(self.file.name), paths, dict(counts)))
        for part in parts:
            for path in (part.entries, *part.states.values()):
                _check_is_seen(path)
        return parts

    def remove(self) -> None:
        """Remove the folder; call it on the main process after the merge."""
        _remove([self.folder])
        if not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()


def merge_entries(parts: Iterable[RankOutput], path: Path) -> None:
    """Concatenate the parts' entries to one results file, atomically."""
    filled = [part.entries for part in parts if part.entries.stat().st_size]
    with replacing(path) as unfinished, unfinished.open("wb") as merged:
        merged.write(b"[")
        for place, source in enumerate(filled):
            merged.write(b",\n" if place else b"")
            with source.open("rb") as file:
                shutil.copyfileobj(file, merged, 2**20)
        merged.write(b"]")


def read_states(parts: Iterable[RankOutput], task: str) -> Iterator[bytes]:
    """Yield the states of a task, one by one."""
    for part in parts:
        if task in part.states:
            yield part.states[task].read_bytes()


def _check_is_seen(path: Path) -> None:
    if not path.exists():
        raise UserError(
            f"{path} was written by another process of this evaluation, but the main process does "
            "not see it.\n"
            "Detections are passed on by disk: set OUTPUT_DIR to a folder that all machines share."
        )


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
