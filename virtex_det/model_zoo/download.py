"""Bringing a weights file into the cache: whole, checked, once for all processes, and resumable when cut short."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from iopath.common.file_io import get_cache_dir

from virtex_det.checkpoint.hashing import file_sha256, remember_sha256
from virtex_det.errors import UserError
from virtex_det.files import open_regular
from virtex_det.model_zoo.cache import (
    cache_path,
    check,
    difference,
    not_whole,
    notes_of,
    recall,
    remember,
)
from virtex_det.model_zoo.catalog import Record, is_address, record_of
from virtex_det.model_zoo.transfer import PIECE_BYTES, NotFetched, download, forget, kept, open_part
from virtex_det.model_zoo.watch import Stalled, watched

DETECTRON2_FILES = "https://dl.fbaipublicfiles.com/"

_log = logging.getLogger(__name__)


def fetch(record: Record) -> Path:
    """Return the file of a record on disk, downloaded if need be, its hash checked either way.

    ``VIRTEX_DET_CACHE`` is the folder that keeps files, ``VIRTEX_DET_MIRROR`` an address or a
    folder that is asked first, and with ``VIRTEX_DET_OFFLINE=1`` the network is not touched.
    Proxies are those of the environment.

    Raises:
        UserError: when no source has the file, when it is not the file that it should be, or when
            it cannot be written.
    """
    path = cache_path(record)
    if not _is_there(path):
        with _alone(path):
            if not _is_there(path):
                _download(record, path)
    remember_sha256(path, check(record, path))
    return path


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise UserError(_no_cache(path, error)) from error


def fetch_address(url: str) -> Path:
    """Return the file of an http address on disk, as ``fetch`` does.

    What Detectron2 has in its own cache of the files that it publishes is taken from there, if it
    is whole.

    Raises:
        UserError: as ``fetch``; or it is no address.
    """
    return fetch(record_of(url))


def is_offline() -> bool:
    """Return whether ``VIRTEX_DET_OFFLINE`` forbids the network."""
    return os.environ.get("VIRTEX_DET_OFFLINE", "") not in ("", "0")


def _download(record: Record, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    failures = []
    for source in _sources(record, path):
        try:
            _bring(source, part)
            _accept(record, part, path)
            return
        except NotFetched as error:
            failures.append(f"  {source}: {error}")
        except OSError as error:
            raise UserError(_cannot_write(part, error)) from error
    raise UserError(
        f"{record.name} was not fetched:\n"
        + "\n".join(failures)
        + f"\nFetched by hand from {record.page}, it goes to "
        f"{path}; VIRTEX_DET_MIRROR names another address or a folder to take it from."
    )


def _sources(record: Record, path: Path) -> list[str]:
    mirror = os.environ.get("VIRTEX_DET_MIRROR", "").rstrip("/")
    sources = (
        ([f"{mirror}/{record.file_name}"] if mirror else []) + _of_detectron2(record) + record.urls
    )
    if not sources:
        by_hand = (
            f"No direct address is known for {record.name}. Fetch it by hand from {record.page}"
        )
        raise UserError(f"{by_hand} and put it at {path}. {record.note}".strip())
    if is_offline():
        sources = [source for source in sources if not is_address(source)]
        if not sources:
            raise UserError(
                f"{record.name} is not in the cache, and VIRTEX_DET_OFFLINE forbids the network.\n"
                f"Where there is one, run: python tools/model_zoo.py download {record.name}\n"
                f"Then copy the file to {path}"
            )
    return sources


def _of_detectron2(record: Record) -> list[str]:
    """Return where Detectron2 keeps a file that it publishes, if it does."""
    if [record.name] != record.urls or not record.name.startswith(DETECTRON2_FILES):
        return []
    path = PurePosixPath(urlsplit(record.name).path.lstrip("/"))
    if ".." in path.parts or "\0" in str(path):  # it would lead out of that cache
        return []
    file = Path(get_cache_dir()) / path
    return [str(file)] if file.is_file() else []


def _bring(source: str, part: Path) -> None:
    if is_address(source):
        try:
            watched(lambda watch: download(source, part, watch))
        except Stalled as error:
            raise NotFetched(f"{error}; {kept(part)}") from error
    else:
        _copy(source, part)


def _copy(source: str, part: Path) -> None:
    """Copy a file of this machine into ``part``."""
    try:
        path = Path(source).expanduser()
        if not path.is_file():
            raise NotFetched("there is no such file")
        file = open_regular(path)
    except (UserError, OSError, RuntimeError) as error:  # RuntimeError: ~NAME of nobody
        raise NotFetched(f"it cannot be read: {error}".rstrip(".")) from error
    forget(part)
    with file, open_part(part) as copy:
        shutil.copyfileobj(file, copy, PIECE_BYTES)


def _accept(record: Record, part: Path, path: Path) -> None:
    """Make a whole part the cache's file if it is the right one; its hash is noted first, so that no file lacks one."""
    size = part.stat().st_size
    if not size:
        raise NotFetched("the file is empty (0 bytes)")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    digest = file_sha256(part)
    problem = difference(record, recall(path), digest, size) or (
        "" if record.sha256 else not_whole(part)
    )
    if problem:
        forget(part)
        raise NotFetched(
            f"what came {problem.rstrip('.')}; it was not kept. {_advice(record, path)}"
        )
    remember(path, part, digest)
    part.replace(path)
    forget(part)  # the note of its version
    _log.info(f"{path}: {size:,} bytes, sha256 {digest}")


def _advice(record: Record, path: Path) -> str:
    if record.sha256 is None and recall(path) is not None:
        return f"Run it again, or delete {notes_of(path)} to take what is published there now"
    return "Run it again to fetch it anew"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes from downloading the same file meanwhile."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        name = path.with_name(f".{path.name}.lock")
        if name.is_symlink():
            name.unlink()  # what it leads to would be emptied
        lock = FileLock(name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.info(f"Waiting for another process that downloads {path.name}")
            lock.acquire()
    except (OSError, NotImplementedError) as error:  # the latter where the disk has no locks
        raise UserError(_no_cache(path, error)) from error
    try:
        yield
    finally:
        lock.release()


def _no_cache(path: Path, error: Exception) -> str:
    return (
        f"{path.name} is not in the cache {path.parent}, which cannot be used: "
        f"{getattr(error, 'strerror', None) or error}. Set VIRTEX_DET_CACHE to a folder that can."
    )


def _cannot_write(part: Path, error: OSError) -> str:
    free = shutil.disk_usage(part.parent).free // 2**20 if part.parent.is_dir() else 0
    have = part.stat().st_size if part.exists() else 0
    return (
        f"Cannot write {part}: {error.strerror or error}. The disk has {free:,} MB free. The "
        f"{have:,} bytes that came are kept: make room and run it again to go on, or set "
        "VIRTEX_DET_CACHE to another disk."
    )
