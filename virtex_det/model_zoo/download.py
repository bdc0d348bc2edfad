"""Bringing a weights file into the cache: whole, checked, once for all processes, and resumable when cut short."""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from filelock import FileLock, Timeout
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util import Retry

from virtex_det.checkpoint.reading import file_sha256
from virtex_det.errors import UserError
from virtex_det.model_zoo.cache import cache_path, check, difference, recall, remember
from virtex_det.model_zoo.catalog import Record
from virtex_det.utils import write_atomically

RETRIES = 3
BACKOFF_SECONDS = 1.0
TIMEOUT_SECONDS = (10.0, 60.0)  # to connect; between two pieces
PIECE_BYTES = 1 << 16  # what a cut connection may lose

_log = logging.getLogger(__name__)


class _NotFetched(Exception):
    """One source did not give the file; the message says why."""


def fetch(record: Record) -> Path:
    """Return the file of a record on disk, downloaded if need be, its hash checked either way.

    ``VIRTEX_DET_CACHE`` is the folder that keeps files, ``VIRTEX_DET_MIRROR`` an address or a folder that is asked
    first, and with ``VIRTEX_DET_OFFLINE=1`` the network is not touched. Proxies are those of the environment.

    Raises:
        UserError: when no source has the file, when it is not the file that it should be, or when it cannot be written.
    """
    path = cache_path(record)
    if not path.exists():
        with _alone(path):
            if not path.exists():
                _download(record, path)
    check(record, path)
    return path


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
        except _NotFetched as error:
            failures.append(f"  {source}: {error}")
        except OSError as error:
            raise UserError(_cannot_write(part, error)) from error
    raise UserError(
        f"{record.name} was not fetched:\n" + "\n".join(failures) + f"\nFetched by hand from {record.page}, it goes to "
        f"{path}; VIRTEX_DET_MIRROR names another address or a folder to take it from."
    )


def _sources(record: Record, path: Path) -> list[str]:
    mirror = os.environ.get("VIRTEX_DET_MIRROR", "").rstrip("/")
    sources = ([f"{mirror}/{record.file_name}"] if mirror else []) + record.urls
    if not sources:
        by_hand = f"No direct address is known for {record.name}. Fetch it by hand from {record.page}"
        raise UserError(f"{by_hand} and put it at {path}. {record.note}".strip())
    if is_offline():
        sources = [source for source in sources if not _is_url(source)]
        if not sources:
            raise UserError(
                f"{record.name} is not in the cache, and VIRTEX_DET_OFFLINE forbids the network.\nWhere there is one, "
                f"run: python tools/model_zoo.py download {record.name}\nThen copy the file to {path}"
            )
    return sources


def _bring(source: str, part: Path) -> None:
    if _is_url(source):
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=_retries()))
            session.mount("https://", HTTPAdapter(max_retries=_retries()))
            _get(session, source, part)
    elif Path(source).expanduser().is_file():
        _forget(part)
        shutil.copyfile(Path(source).expanduser(), part)
    else:
        raise _NotFetched("there is no such file")


def _retries() -> Retry:
    """Try again to connect, and where the server says that it is busy."""
    return Retry(
        RETRIES,
        backoff_factor=BACKOFF_SECONDS,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
        respect_retry_after_header=False,
    )


def _get(session: requests.Session, url: str, part: Path) -> None:
    """Download into ``part``, going on after what is there; a cut connection is taken up again."""
    for attempt in range(RETRIES + 1):
        if attempt:
            time.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
        try:
            if _get_rest(session, url, part):
                return
        except requests.HTTPError as error:
            raise _NotFetched(str(error).partition(" for url")[0]) from error
        except requests.RequestException as error:
            raise _NotFetched(f"no connection: {_cause(error)}") from error
    have = part.stat().st_size if part.exists() else 0
    raise _NotFetched(f"cut short {RETRIES + 1} times; the {have:,} bytes that came are kept, run it again to go on")


def _get_rest(session: requests.Session, url: str, part: Path) -> bool:
    """Ask for what is missing in ``part`` and write it; return whether the file is whole now."""
    version = _version_file(part)
    have = part.stat().st_size if part.exists() and version.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version.read_text()}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if response.status_code == 416 and response.headers.get("Content-Range") == f"bytes */{have}":
            return True
        if response.status_code == 416 or (response.status_code == 206 and not _begins_at(response, have)):
            _forget(part)  # not the piece that was asked for: begin anew
            return False
        response.raise_for_status()
        if response.status_code != 206:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        try:
            _write(response, part, have, total)
        except requests.RequestException as error:
            _log.warning(f"{url}: {_cause(error)}")
            return False
    return total is None or part.stat().st_size >= total


def _write(response: requests.Response, part: Path, have: int, total: int | None) -> None:
    pieces = response.iter_content(PIECE_BYTES)
    piece = next(pieces, b"")
    if not have:
        _refuse_page(piece, response)
        _forget(part)
        if version := _version(response):
            write_atomically(_version_file(part), version)
    with (
        tqdm(initial=have, total=total, desc=part.stem, unit="B", unit_scale=True, disable=None) as bar,
        part.open("ab") as file,
    ):
        while piece:
            file.write(piece)
            bar.update(len(piece))
            piece = next(pieces, b"")


def _refuse_page(beginning: bytes, response: requests.Response) -> None:
    """Refuse a web page, which dead links and login walls send instead of a file, with status 200."""
    if beginning.lstrip()[:1] == b"<":
        raise _NotFetched(f"{response.url} is a web page, not a file; the link may be dead")


def _begins_at(response: requests.Response, have: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _version(response: requests.Response) -> str:
    """Return what a server can tell the same file by later: a strong ETag, or the date of the last change."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _version_file(part: Path) -> Path:
    """Return where it is noted which version of the file a part is of; a part without it is not gone on with."""
    return part.with_name(f"{part.name}.version")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def _accept(record: Record, part: Path, path: Path) -> None:
    """Make a whole part the cache's file if it is the right one; its hash is noted first, so that no file lacks one."""
    size = part.stat().st_size
    if not size:
        raise _NotFetched("the file is empty (0 bytes)")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    digest = file_sha256(part)
    if problem := difference(record, recall(path), digest, size):
        _forget(part)
        raise _NotFetched(f"what came {problem}; it was not kept")
    remember(path, part, digest)
    part.replace(path)
    _version_file(part).unlink(missing_ok=True)
    _log.info(f"{path}: {size:,} bytes, sha256 {digest}")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes from downloading the same file meanwhile."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.info(f"Waiting for another process that downloads {path.name}")
            lock.acquire()
    except OSError as error:
        raise UserError(
            f"{path.name} is not in the cache {path.parent}, which cannot be written: {error.strerror or error}. "
            "Set VIRTEX_DET_CACHE to a folder that can."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _cannot_write(part: Path, error: OSError) -> str:
    free = shutil.disk_usage(part.parent).free // 2**20
    have = part.stat().st_size if part.exists() else 0
    return (
        f"Cannot write {part}: {error.strerror or error}. The disk has {free:,} MB free. The {have:,} bytes that came "
        "are kept: make room and run it again to go on, or set VIRTEX_DET_CACHE to another disk."
    )


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _cause(error: requests.RequestException) -> str:
    """Return what went wrong in a line, without the address and the layers around it."""
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "reason", inner)).partition("\n")[0]
