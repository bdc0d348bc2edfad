"""The cache of downloaded files, and checks that they have not changed."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from virtex_det.checkpoint.hashing import file_sha256
from virtex_det.checkpoint.reading import read_file
from virtex_det.errors import UserError
from virtex_det.files import read_regular
from virtex_det.model_zoo.catalog import Record
from virtex_det.utils import write_atomically

_MAX_NOTES = 1 << 16  # bytes


class Seen(NamedTuple):
    """The state of a file when it was last checked; a change of size or time means a new check."""

    sha256: str
    size: int
    mtime_ns: int
    are_weights: bool = False  # it has the catalogue's hash, or was read completely


def cache_folder() -> Path:
    """Return ``$VIRTEX_DET_CACHE``, or ``virtex_det`` in the user's cache folder.

    Raises:
        UserError: the home directory in it does not exist.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "virtex_det"
    folder = Path(os.environ.get("VIRTEX_DET_CACHE") or default)
    try:
        return folder.expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{folder} cannot be the cache folder: {error} Set VIRTEX_DET_CACHE to another folder."
        ) from error


def cache_path(record: Record) -> Path:
    """Return the path of a record's file in the cache."""
    return cache_folder() / record.file_name


def check(record: Record, path: Path, *, thorough: bool = False) -> str:
    """Compare a cached file with the catalogue and with the first download.

    A file with the remembered size and time of change is not read again.

    Args:
        record: the file's record.
        path: the file.
        thorough: read the file again in any case.

    Returns:
        The file's SHA-256.

    Raises:
        UserError: it is another file.
    """
    seen, status = recall(path), path.stat()
    unchanged = seen is not None and (seen.size, seen.mtime_ns) == (
        status.st_size,
        status.st_mtime_ns,
    )
    known = seen if unchanged and not thorough else None
    digest = known.sha256 if known else file_sha256(path)
    problem = difference(record, seen, digest, status.st_size)
    if not problem and record.sha256 is None and not (known and known.are_weights):
        problem = not_whole(path)
    if problem:
        problem = problem.rstrip(".")
        quoted = str(path).replace("'", "'\"'\"'")  # for a shell
        raise UserError(
            f"The cached file {path} {problem}.\nDelete it to download it again: rm '{quoted}'"
        )
    if seen is None or not (unchanged and seen.are_weights):
        with suppress(OSError):  # the cache may be read-only
            remember(path, path, digest)
    return digest


def not_whole(path: Path) -> str:
    """Read a file completely, and return why it is not whole weights; "" if it is."""
    try:
        read_file(path)
    except UserError as error:
        return (
            str(error).removeprefix(f"{path} ").removesuffix(": delete it and download it again.")
        )
    return ""


def difference(record: Record, seen: Seen | None, digest: str, size: int) -> str:
    """Return how a file differs from its record; empty if it does not."""
    if record.size is not None and size != record.size:
        return f"has {size:,} bytes, but the catalogue says {record.size:,}"
    if record.sha256 is not None and not digest.startswith(record.sha256):
        return f"has the sha256 {digest}, but the catalogue says {record.sha256}"
    if seen is not None and digest != seen.sha256:
        return (
            f"has the sha256 {digest}, but it was {seen.sha256} when {record.name} was first "
            "downloaded"
        )
    return ""


def recall(path: Path) -> Seen | None:
    """Return the remembered state of the cache's file in ``path``; None if there is none."""
    notes = notes_of(path)
    try:
        return Seen(**json.loads(read_regular(notes, _MAX_NOTES))) if notes.exists() else None
    except (UserError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{notes} is damaged: {error}. Delete it; the weights file will be hashed again."
        ) from error


def remember(path: Path, file: Path, digest: str) -> None:
    """Store the hash of ``file``, which was checked and is or will be the cache's ``path``."""
    status = file.stat()
    seen = Seen(digest, status.st_size, status.st_mtime_ns, are_weights=True)
    write_atomically(notes_of(path), json.dumps(seen._asdict()) + "\n")


def notes_of(path: Path) -> Path:
    """Return the path of the notes on the file in ``path``."""
    return path.with_name(f"{path.name}.sha256.json")
