"""Bringing a weights file into the cache: whole, checked, once for all processes, and resumable when cut short."""

import itertools
import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
from filelock import FileLock, Timeout
from iopath.common.file_io import get_cache_dir
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from virtex_det.checkpoint.reading import file_sha256, not_weights
from virtex_det.errors import UserError
from virtex_det.files import open_regular
from virtex_det.model_zoo.cache import cache_path, check, difference, not_whole, recall, remember
from virtex_det.model_zoo.catalog import Record, is_address, record_of
from virtex_det.model_zoo.watch import Stalled, Watch, watched
from virtex_det.utils import write_atomically

RETRIES = 3
BACKOFF_SECONDS = 1.0
TIMEOUT_SECONDS = (10.0, 60.0)  # to connect; between two pieces
DETECTRON2_FILES = "https://dl.fbaipublicfiles.com/"
PIECE_BYTES = 1 << 16  # what a cut connection may lose
MAX_BYTES = 8 << 30  # of a file
_TELLING_BYTES = 512  # of its beginning
# What a server can make of a request besides an answer: requests lets some errors of the libraries below it through.
_FAILURES = (requests.RequestException, HTTPError, HTTPException, ValueError)

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


def fetch_address(url: str) -> Path:
    """Return the file of an http address on disk, as ``fetch`` does.

    What Detectron2 has in its own cache of the files that it publishes is taken from there, if it is whole.

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
    sources = ([f"{mirror}/{record.file_name}"] if mirror else []) + _of_detectron2(record) + record.urls
    if not sources:
        by_hand = f"No direct address is known for {record.name}. Fetch it by hand from {record.page}"
        raise UserError(f"{by_hand} and put it at {path}. {record.note}".strip())
    if is_offline():
        sources = [source for source in sources if not is_address(source)]
        if not sources:
            raise UserError(
                f"{record.name} is not in the cache, and VIRTEX_DET_OFFLINE forbids the network.\nWhere there is one, "
                f"run: python tools/model_zoo.py download {record.name}\nThen copy the file to {path}"
            )
    return sources


def _of_detectron2(record: Record) -> list[str]:
    """Return where Detectron2 keeps a file that it publishes, if it does."""
    if [record.name] != record.urls or not record.name.startswith(DETECTRON2_FILES):
        return []
    kept = Path(get_cache_dir()) / urlsplit(record.name).path.lstrip("/")
    return [str(kept)] if kept.is_file() else []


def _bring(source: str, part: Path) -> None:
    if is_address(source):
        try:
            watched(lambda watch: _get(source, part, watch))
        except Stalled as error:
            raise _NotFetched(f"{error}; {_kept(part)}") from error
    elif Path(source).expanduser().is_file():
        _forget(part)
        with open_regular(Path(source).expanduser()) as file, _open_part(part) as copy:
            shutil.copyfileobj(file, copy, PIECE_BYTES)
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


def _get(url: str, part: Path, watch: Watch) -> None:
    """Download into ``part``, going on after what is there; a cut connection is taken up again."""
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=_retries()))
        session.mount("https://", HTTPAdapter(max_retries=_retries()))
        for attempt in range(RETRIES + 1):
            if attempt:
                time.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
            try:
                if _get_rest(session, url, part, watch):
                    return
            except requests.HTTPError as error:
                raise _NotFetched(str(error).partition(" for url")[0]) from error
            except _FAILURES as error:
                raise _NotFetched(f"no connection: {_cause(error)}") from error
    raise _NotFetched(f"cut short {RETRIES + 1} times; {_kept(part)}")


def _get_rest(session: requests.Session, url: str, part: Path, watch: Watch) -> bool:
    """Ask for what is missing in ``part`` and write it; return whether the file is whole now."""
    have = _resumable(part)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": _version_file(part).read_text(encoding="utf-8")}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        _refuse_downgrade(response)
        if response.status_code == 416 and response.headers.get("Content-Range") == f"bytes */{have}":
            return True
        if response.status_code == 416 or (response.status_code == 206 and not _begins_at(response, have)):
            _forget(part)  # not the piece that was asked for: begin anew
            return False
        response.raise_for_status()
        if response.status_code not in (200, 206):
            raise _NotFetched(f"the server answers with status {response.status_code} and no file")
        if response.status_code != 206:
            have = 0
        total = _total(response, have)
        try:
            _write(response, part, have, total, watch)
        except _FAILURES as error:
            _log.warning(f"{url}: {_cause(error)}")
            return False
    return total is None or part.stat().st_size >= total


def _resumable(part: Path) -> int:
    """Return how many bytes of ``part`` can be gone on with: none where it, or the note of its version, is a link."""
    for path in (part, _version_file(part)):
        if not path.is_symlink() and not path.exists():
            return 0
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            _forget(part)
            return 0
    return part.stat().st_size


def _refuse_downgrade(response: requests.Response) -> None:
    """Refuse a redirect that leaves https: what comes then may be anybody's."""
    urls = [*(step.url for step in response.history), response.url]
    if urls[0].lower().startswith("https:") and not all(url.lower().startswith("https:") for url in urls):
        raise _NotFetched("it was redirected from https to http")


def _total(response: requests.Response, have: int) -> int | None:
    """Return how many bytes the whole file has; None where the server does not say it in a form that can be used."""
    whole = re.fullmatch(r"bytes \d+-\d+/(\d{1,18})", response.headers.get("Content-Range", ""), re.ASCII)
    if response.status_code == 206 and whole:
        return int(whole[1])
    length = response.headers.get("Content-Length", "")
    is_encoded = response.headers.get("Content-Encoding", "identity").lower() != "identity"
    return None if is_encoded or not re.fullmatch(r"\d{1,18}", length, re.ASCII) else have + int(length)


def _write(response: requests.Response, part: Path, have: int, total: int | None, watch: Watch) -> None:
    pieces = response.iter_content(PIECE_BYTES)
    if not have:
        beginning = b""
        while len(beginning) < _TELLING_BYTES and (piece := next(pieces, b"")):
            beginning += piece
        if beginning and (problem := not_weights(beginning[:_TELLING_BYTES])):
            raise _NotFetched(f"what {response.url} sends {problem}")
        watch.count(0)
        _forget(part)
        if version := _version(response):
            write_atomically(_version_file(part), version)
        pieces = itertools.chain([beginning], pieces)
    with (
        tqdm(initial=have, total=total, desc=part.stem, unit="B", unit_scale=True, disable=None) as bar,
        _open_part(part) as file,
    ):
        for piece in pieces:
            have += len(piece)
            if have > MAX_BYTES:
                raise _NotFetched(f"it has more than {MAX_BYTES:,} bytes, the most that are fetched")
            watch.count(len(piece))
            file.write(piece)
            bar.update(len(piece))


def _open_part(part: Path) -> BinaryIO:
    """Open a part to go on with; never through a link that someone put in its place."""
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    return os.fdopen(handle, "ab")


def _begins_at(response: requests.Response, have: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _version(response: requests.Response) -> str:
    """Return what a server can tell the same file by later: a strong ETag, or the date of the last change."""
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        return ""  # its pieces are counted in other bytes
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
    problem = difference(record, recall(path), digest, size) or ("" if record.sha256 else not_whole(part))
    if problem:
        _forget(part)
        raise _NotFetched(f"what came {problem.rstrip('.')}; it was not kept. Run it again to fetch it anew")
    remember(path, part, digest)
    part.replace(path)
    _version_file(part).unlink(missing_ok=True)
    _log.info(f"{path}: {size:,} bytes, sha256 {digest}")


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


def _kept(part: Path) -> str:
    have = part.stat().st_size if part.exists() else 0
    return f"the {have:,} bytes that came are kept, run it again to go on"


def _cause(error: Exception) -> str:
    """Return what went wrong in a line, without the address and the layers around it."""
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "reason", inner)).partition("\n")[0][:300]
