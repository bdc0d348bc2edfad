"""The lock of a run folder: only one process at a time may train into it."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from virtex_det.errors import UserError

LOCK = ".lock"
# Environment variable with the folder that a run's parent process keeps locked for the run.
LOCKED = "VIRTEX_DET_LOCKED"
# Seconds to wait for a lock: loader processes of a killed run hold it a moment longer.
PATIENCE = 5.0

_kept: list[IO[str]] = []


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Lock a folder in a block, and yield the lock's descriptor.

    A process that inherits the descriptor holds the lock until it ends.

    Raises:
        UserError: another process works in the folder; the message says which.
    """
    with _lock(folder) as file:
        yield file.fileno()


def keep_locked(folder: Path) -> None:
    """Lock a folder until this process ends, unless its parent has locked the folder for it.

    Raises:
        UserError: another process works in the folder; the message says which.
    """
    if os.environ.get(LOCKED) != str(folder.resolve()) and not any(
        _is_lock_of(file, folder) for file in _kept
    ):
        _kept.append(_lock(folder))


def _is_lock_of(file: IO[str], folder: Path) -> bool:
    """Return whether an open file is a folder's lock; the folder may have been renamed."""
    path = folder / LOCK
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())


def _take(file: IO[str]) -> bool:
    """Lock a file if it is not locked; return whether this process has the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _held_by_another(folder: Path, file: IO[str]) -> UserError:
    file.seek(0)
    owner = file.read(200).strip() or "process unknown"
    file.close()
    return UserError(f"Another process works in {folder}: {owner}.\nWait for it, or end it.")


def _lock(folder: Path) -> IO[str]:
    file = (folder / LOCK).open("a+")
    deadline = time.monotonic() + PATIENCE
    try:
        while not _take(file):
            if time.monotonic() > deadline:
                raise _held_by_another(folder, file)
            time.sleep(0.1)
    except OSError:  # a file system without locks
        return file
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file
