"""Downloading one file from an http address to a part: with resuming, redirects and limits.

A part is only continued with the version of the file that it began with, whatever the server does
with If-Range, so that bytes of two files are never mixed.
"""

import hashlib
import itertools
import json
import logging
import os
import re
import stat
import time
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from virtex_det.checkpoint.reading import not_weights
from virtex_det.errors import UserError
from virtex_det.files import read_regular
from virtex_det.model_zoo.catalog import is_address
from virtex_det.model_zoo.watch import Watch
from virtex_det.utils import write_atomically

RETRIES = 3
BACKOFF_SECONDS = 1.0
TIMEOUT_SECONDS = (10.0, 60.0)  # to connect; between two pieces
PIECE_BYTES = 1 << 16  # at most this much is lost when a connection breaks
MAX_BYTES = 8 << 30  # of a file
MAX_REDIRECTS = 30
_BUSY = (429, 500, 502, 503, 504)  # worth asking again
_PIECE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
# A single encoding; several nested ones can expand to gigabytes.
_ENCODINGS = ("identity", "gzip", "x-gzip", "deflate")
_MAX_VERSION = 1000  # characters of a version in a request
_MAX_NOTE = 1 << 13  # bytes
_HEAD_BYTES = 512  # at the beginning of a file, which show what it is
# Errors of a request; requests passes on some errors of the libraries that it uses.
_FAILURES = (requests.RequestException, HTTPError, HTTPException, ValueError)

_log = logging.getLogger(__name__)


class NotFetched(Exception):
    """A source did not deliver the file; the message says why."""


def _retries() -> Retry:
    """Retry connecting and waiting for a response; this module checks the response itself."""
    return Retry(RETRIES, backoff_factor=BACKOFF_SECONDS, respect_retry_after_header=False)


def download(url: str, part: Path, watch: Watch) -> None:
    """Download to ``part``, continuing an existing part, also after a broken connection.

    Args:
        url: an http address.
        part: the file to write; a note of its version is in a file beside it.
        watch: counts the downloaded bytes.

    Raises:
        NotFetched: the server does not deliver the whole file; the part is kept.
        OSError: the part cannot be written.
    """
    why = ""
    with requests.Session() as session:
        for kind in ("http://", "https://"):
            session.mount(kind, HTTPAdapter(max_retries=_retries()))
        for attempt in range(RETRIES + 1):
            if attempt:
                time.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
            why = _get_rest(session, url, part, watch)
            if not why:
                return
    raise NotFetched(f"{why} {RETRIES + 1} times; {kept(part)}")


def _get_rest(session: requests.Session, url: str, part: Path, watch: Watch) -> str:
    """Request the rest of ``part`` and write it.

    Returns:
        "" if the file is whole now; otherwise the reason, for a message.
    """
    begun = _begun(url, part)
    have = part.stat().st_size if begun else 0
    headers = {"Accept-Encoding": "identity"}
    if begun:
        headers |= {"Range": f"bytes={have}-", "If-Range": begun.version}
    with closing(_answer(session, url, headers)) as response:
        status = response.status_code
        if status in _BUSY:
            return _refusal(response)
        if begun and status == 416 and begun.is_whole(response, have):
            return ""
        if begun and (status == 416 or (status == 206 and not begun.is_rest(response, have))):
            forget(part)  # not the requested piece: start again
            return "cut short"
        if status not in ((200, 206) if begun else (200,)):
            raise NotFetched(_refusal(response))
        if _encoding(response) not in _ENCODINGS:
            raise NotFetched(
                f"the server sends it with the encoding {_encoding(response)[:100]}, which was not "
                "requested"
            )
        if status == 200:
            have = 0
        total = _total(response, have)
        try:
            _write(response, url, part, have, total, watch)
        except _FAILURES as error:
            _log.warning(f"{url}: {_cause(error)}")
            return "cut short"
    return _compare_size(part, total)


def _compare_size(part: Path, total: int | None) -> str:
    size = part.stat().st_size
    if total is not None and size > total:
        forget(part)
        raise NotFetched(f"the server sends {size:,} bytes of a file of {total:,}")
    return "cut short" if total is not None and size < total else ""


def _answer(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    """Send a request and follow redirects, whose bodies are not read."""
    for _ in range(MAX_REDIRECTS + 1):
        response = _ask(session, url, headers)
        target = _target(session, url, response)
        if not target:
            return response
        response.close()
        if not is_address(target):
            raise NotFetched(f"it is redirected to {target[:200]}, which is not an http address")
        if url.lower().startswith("https:") and not target.lower().startswith("https:"):
            # Without https the file may be anyone's.
            raise NotFetched("it is redirected from https to http")
        url = target
    raise NotFetched(f"it is redirected more than {MAX_REDIRECTS} times")


def _ask(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    # Not session.get, which reads the whole body of a redirect, whatever its size.
    try:
        request = session.prepare_request(requests.Request("GET", url, headers=headers))
        options = session.merge_environment_settings(url, {}, True, None, None)
        return session.get_adapter(url).send(request, timeout=TIMEOUT_SECONDS, **options)
    except _FAILURES as error:
        raise NotFetched(f"no connection: {_cause(error)}") from error
    except OSError as error:  # an invalid file of certificates
        raise NotFetched(
            f"no connection: {error} (REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE)"
        ) from error


def _target(session: requests.Session, url: str, response: requests.Response) -> str:
    """Return the address that a response redirects to; "" if it does not redirect."""
    try:
        target = session.get_redirect_target(response)
        return urljoin(url, target) if target else ""
    except ValueError as error:  # invalid bytes or brackets
        raise NotFetched(f"it is redirected to an invalid address: {_cause(error)}") from error


def _refusal(response: requests.Response) -> str:
    if response.status_code >= 400:
        return f"the server answers {response.status_code} {response.reason or ''}".rstrip()
    return f"the server answers with status {response.status_code} instead of a file"


class _Begun(NamedTuple):
    """The version and address of a part that can be continued."""

    version: str  # a strong ETag, or the date of the last change
    address: str  # its SHA-256, since an address may contain a password

    def is_rest(self, response: requests.Response, have: int) -> bool:
        """Whether a piece has the same version and begins where the part ends.

        Some servers ignore If-Range.
        """
        piece = _PIECE.fullmatch(response.headers.get("Content-Range", ""))
        if not piece or _version(response) != self.version:
            return False
        first, last, total = (int(number) for number in piece.groups())
        return have == first <= last == total - 1

    def is_whole(self, response: requests.Response, have: int) -> bool:
        """Whether a server says that the part is already the whole file of the same version."""
        same = _version(response) in ("", self.version)  # a 416 response need not have a version
        return same and response.headers.get("Content-Range") == f"bytes */{have}"


def _begun(url: str, part: Path) -> _Begun | None:
    """Return the version of a part that can be continued; delete one that is a link."""
    for path in (part, version_file(part)):
        if not path.is_symlink() and not path.exists():
            return None
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            forget(part)
            return None
    try:
        begun = _Begun(**json.loads(read_regular(version_file(part), _MAX_NOTE)))
        is_good = isinstance(begun.version, str) and re.fullmatch(r"[ -~\xa0-\xff]+", begun.version)
    except (UserError, ValueError, TypeError, RecursionError):
        is_good = None
    if not is_good or begun.address != _hash(url):
        return None  # the first downloaded piece replaces the part
    return begun


def _total(response: requests.Response, have: int) -> int | None:
    """Return the number of bytes of the whole file; None if the server does not state it."""
    if response.status_code == 206 and (
        piece := _PIECE.fullmatch(response.headers.get("Content-Range", ""))
    ):
        return int(piece[3])
    length = response.headers.get("Content-Length", "")
    is_encoded = _encoding(response) != "identity"
    return None if is_encoded or not re.fullmatch(r"[0-9]{1,18}", length) else have + int(length)


def _encoding(response: requests.Response) -> str:
    return response.headers.get("Content-Encoding", "").strip().lower() or "identity"


def _write(
    response: requests.Response, url: str, part: Path, have: int, total: int | None, watch: Watch
) -> None:
    pieces = response.iter_content(PIECE_BYTES)
    if not have:
        beginning = b""
        while len(beginning) < _HEAD_BYTES and (piece := next(pieces, b"")):
            beginning += piece
        if beginning and (problem := not_weights(beginning[:_HEAD_BYTES])):
            raise NotFetched(f"the file of {response.url} {problem}")
        watch.count(0)
        forget(part)
        if version := _version(response):
            begun = _Begun(version, _hash(url))
            write_atomically(version_file(part), json.dumps(begun._asdict()))
        pieces = itertools.chain([beginning], pieces)
    with (
        tqdm(
            initial=have, total=total, desc=part.stem, unit="B", unit_scale=True, disable=None
        ) as bar,
        open_part(part) as file,
    ):
        for piece in pieces:
            have += len(piece)
            if have > MAX_BYTES:
                raise NotFetched(f"it has more than {MAX_BYTES:,} bytes, the largest size allowed")
            watch.count(len(piece))
            file.write(piece)
            bar.update(len(piece))


def open_part(part: Path) -> BinaryIO:
    """Open a part for appending, but never through a link."""
    handle = os.open(
        part, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
    )
    return os.fdopen(handle, "ab")


def _version(response: requests.Response) -> str:
    """Return the version of a file on the server: a strong ETag, or the date of the last change."""
    if _encoding(response) != "identity":
        return ""  # pieces would be counted in encoded bytes
    tag = response.headers.get("ETag", "")
    version = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
    return version if len(version) <= _MAX_VERSION else ""


def _hash(url: str) -> str:
    return hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()


def version_file(part: Path) -> Path:
    """Return the path of the note of a part's version; a part without it is not continued."""
    return part.with_name(f"{part.name}.version")


def forget(part: Path) -> None:
    """Delete a part and the note of its version."""
    part.unlink(missing_ok=True)
    version_file(part).unlink(missing_ok=True)


def kept(part: Path) -> str:
    """Return advice for an incomplete part."""
    have = part.stat().st_size if part.exists() else 0
    return (
        f"the {have:,} downloaded bytes are kept, run it again to continue"
        if have
        else "run it again later"
    )


def _cause(error: Exception) -> str:
    """Return the cause of an error in one line, without the address and nested errors."""
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "reason", inner)).partition("\n")[0][:300]
