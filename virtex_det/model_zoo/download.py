"""Downloading a weights file into the cache: whole, checked, resumable, once for all processes."""

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
    """Return the file of a record on disk, downloaded if necessary, with its hash checked.

    ``VIRTEX_DET_CACHE`` is the cache folder, ``VIRTEX_DET_MIRROR`` an address or folder that is
    tried first, and ``VIRTEX_DET_OFFLINE=1`` forbids the network. Proxies are those of the
    environment.

    Raises:
        UserError: no source has the file, it is another file, or it cannot be written.
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
    except OSError as error:  # a name that is too long, a folder without permission
        raise UserError(_no_cache(path, error)) from error


def fetch_address(url: str) -> Path:
    """Return the file of an http address on disk, as ``fetch`` does.

    Files that Detectron2 publishes are taken from Detectron2's own cache if they are whole there.

    Raises:
        UserError: as ``fetch``, or it is not an address.
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
        f"{record.name} was not downloaded:\n"
        + "\n".join(failures)
        + f"\nDownload it by hand from {record.page} to {path}, or set VIRTEX_DET_MIRROR to "
        "another address or a folder that has it."
    )


def _sources(record: Record, path: Path) -> list[str]:
    mirror = os.environ.get("VIRTEX_DET_MIRROR", "").rstrip("/")
    sources = (
        ([f"{mirror}/{record.file_name}"] if mirror else []) + _of_detectron2(record) + record.urls
    )
    if not sources:
        by_hand = (
            f"No direct address is known for {record.name}. Download it by hand from {record.page}"
        )
        raise UserError(f"{by_hand} to {path}. {record.note}".strip())
    if is_offline():
        sources = [source for source in sources if not is_address(source)]
        if not sources:
            raise UserError(
                f"{record.name} is not in the cache, and VIRTEX_DET_OFFLINE forbids the network.\n"
                "On a machine with a network run: "
                f"python tools/model_zoo.py download {record.name}\n"
                f"Then copy the file to {path}"
            )
    return sources


def _of_detectron2(record: Record) -> list[str]:
    """Return the path of the file in Detectron2's cache, if Detectron2 publishes it and has it."""
    if [record.name] != record.urls or not record.name.startswith(DETECTRON2_FILES):
        return []
    path = PurePosixPath(urlsplit(record.name).path.lstrip("/"))
    if ".." in path.parts or "\0" in str(path):  # it would lead out of the cache
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
    """Copy a local file to ``part``."""
    try:
        path = Path(source).expanduser()
        if not path.is_file():
            raise NotFetched("there is no such file")
        file = open_regular(path)
    except (UserError, OSError, RuntimeError) as error:  # RuntimeError: an unknown user in ~NAME
        raise NotFetched(f"it cannot be read: {error}".rstrip(".")) from error
    forget(part)
    with file, open_part(part) as copy:
        shutil.copyfileobj(file, copy, PIECE_BYTES)


def _accept(record: Record, part: Path, path: Path) -> None:
    """Check a downloaded part and move it into the cache; its hash is stored first."""
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
            f"the download {problem.rstrip('.')}; it was deleted. {_advice(record, path)}"
        )
    remember(path, part, digest)
    part.replace(path)
    forget(part)  # delete the note of its version
    _log.info(f"{path}: {size:,} bytes, sha256 {digest}")


def _advice(record: Record, path: Path) -> str:
    if record.sha256 is None and recall(path) is not None:
        return f"Run it again, or delete {notes_of(path)} to accept the file published there now"
    return "Run it again to download it again"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Prevent other processes from downloading the same file at the same time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        name = path.with_name(f".{path.name}.lock")
        if name.is_symlink():
            name.unlink()  # locking would truncate the link's target
        lock = FileLock(name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.info(f"Waiting for another process that downloads {path.name}")
            lock.acquire()
    # Some versions of filelock raise NotImplementedError if the file system has no locks.
    except (OSError, NotImplementedError) as error:
        raise UserError(_no_cache(path, error)) from error
    try:
        yield
    finally:
        lock.release()


def _no_cache(path: Path, error: Exception) -> str:
    return (
        f"{path.name} is not in the cache {path.parent}, which cannot be used: "
        f"{getattr(error, 'strerror', None) or error}. Set VIRTEX_DET_CACHE to another folder."
    )


def _cannot_write(part: Path, error: OSError) -> str:
    free = shutil.disk_usage(part.parent).free // 2**20 if part.parent.is_dir() else 0
    have = part.stat().st_size if part.exists() else 0
    return (
        f"Cannot write {part}: {error.strerror or error}. The disk has {free:,} MB free. The "
        f"{have:,} downloaded bytes are kept: free disk space and run it again to continue, or set "
        "VIRTEX_DET_CACHE to a folder on another disk."
    )
