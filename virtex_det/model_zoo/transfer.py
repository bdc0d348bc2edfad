"""One file from an http address into a part beside its place: resumed, redirected and bounded, or the reason why not.

A part is gone on with only by the version of the file that it was begun with, whatever the server
makes of If-Range: two files must never become one.
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
PIECE_BYTES = 1 << 16  # what a cut connection may lose
MAX_BYTES = 8 << 30  # of a file
MAX_REDIRECTS = 30
_BUSY = (429, 500, 502, 503, 504)  # worth asking again
_PIECE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
# One of them; many in turn make gigabytes of nothing.
_ENCODINGS = ("identity", "gzip", "x-gzip", "deflate")
_MAX_VERSION = 1000  # characters that a server is told again
_MAX_NOTE = 1 << 13  # bytes
_TELLING_BYTES = 512  # of its beginning
# What a server can make of a request besides an answer: requests lets some errors of the libraries
# below it through.
_FAILURES = (requests.RequestException, HTTPError, HTTPException, ValueError)

_log = logging.getLogger(__name__)


class NotFetched(Exception):
    """One source did not give the file; the message says why."""


def _retries() -> Retry:
    """Try again to connect, and to get an answer at all; what the answer is, is looked at here."""
    return Retry(RETRIES, backoff_factor=BACKOFF_SECONDS, respect_retry_after_header=False)


def download(url: str, part: Path, watch: Watch) -> None:
    """Download into ``part``, going on after what is there; a cut connection is taken up again.

    Args:
        url: an http address.
        part: where the bytes go; a note of the version that they are of lies beside it.
        watch: told what comes.

    Raises:
        NotFetched: the server does not give the file whole; what came of it is kept.
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
    """Ask for what is missing in ``part`` and write it.

    Returns:
        "" where the file is whole now; else what to say if it stays so.
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
            forget(part)  # not the piece that was asked for: begin anew
            return "cut short"
        if status not in ((200, 206) if begun else (200,)):
            raise NotFetched(_refusal(response))
        if _encoding(response) not in _ENCODINGS:
            raise NotFetched(
                f"the server sends it as {_encoding(response)[:100]}, although asked for it as it "
                "is"
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
    """Ask, and follow redirects; of an answer that redirects the head alone is read."""
    for _ in range(MAX_REDIRECTS + 1):
        response = _ask(session, url, headers)
        target = _target(session, url, response)
        if not target:
            return response
        response.close()
        if not is_address(target):
            raise NotFetched(f"it is redirected to {target[:200]}, which is no http address")
        if url.lower().startswith("https:") and not target.lower().startswith("https:"):
            # What comes then may be anybody's.
            raise NotFetched("it is redirected from https to http")
        url = target
    raise NotFetched(f"it is redirected more than {MAX_REDIRECTS} times")


def _ask(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    # Not session.get: it reads all of an answer that redirects, however much that is.
    try:
        request = session.prepare_request(requests.Request("GET", url, headers=headers))
        options = session.merge_environment_settings(url, {}, True, None, None)
        return session.get_adapter(url).send(request, timeout=TIMEOUT_SECONDS, **options)
    except _FAILURES as error:
        raise NotFetched(f"no connection: {_cause(error)}") from error
    except OSError as error:  # of certificates that the environment names
        raise NotFetched(
            f"no connection: {error} (REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE)"
        ) from error


def _target(session: requests.Session, url: str, response: requests.Response) -> str:
    """Return the address that an answer redirects to; "" where it does not."""
    try:
        target = session.get_redirect_target(response)
        return urljoin(url, target) if target else ""
    except ValueError as error:  # bytes that are no text, or brackets that are no address
        raise NotFetched(f"it is redirected to no address: {_cause(error)}") from error


def _refusal(response: requests.Response) -> str:
    if response.status_code >= 400:
        return f"the server answers {response.status_code} {response.reason or ''}".rstrip()
    return f"the server answers with status {response.status_code} and no file"


class _Begun(NamedTuple):
    """A part to go on with: which version of what address it is of."""

    version: str  # a strong ETag, or the date of the last change
    address: str  # the SHA-256 of it: it may hold a password

    def is_rest(self, response: requests.Response, have: int) -> bool:
        """Whether a piece is of the same version, and begins where the part ends; servers may not look at If-Range."""
        piece = _PIECE.fullmatch(response.headers.get("Content-Range", ""))
        if not piece or _version(response) != self.version:
            return False
        first, last, total = (int(number) for number in piece.groups())
        return have == first <= last == total - 1

    def is_whole(self, response: requests.Response, have: int) -> bool:
        """Whether a server that has no more than a part tells so, and of no other version."""
        same = _version(response) in ("", self.version)  # it need not be told here
        return same and response.headers.get("Content-Range") == f"bytes */{have}"


def _begun(url: str, part: Path) -> _Begun | None:
    """Return what is known of a part that can be gone on with; forget what cannot, or is a link or a second name."""
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
        return None  # the first piece that comes takes its place
    return begun


def _total(response: requests.Response, have: int) -> int | None:
    """Return how many bytes the whole file has; None where the server does not say it in a form that can be used."""
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
        while len(beginning) < _TELLING_BYTES and (piece := next(pieces, b"")):
            beginning += piece
        if beginning and (problem := not_weights(beginning[:_TELLING_BYTES])):
            raise NotFetched(f"what {response.url} sends {problem}")
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
                raise NotFetched(f"it has more than {MAX_BYTES:,} bytes, the most that are fetched")
            watch.count(len(piece))
            file.write(piece)
            bar.update(len(piece))


def open_part(part: Path) -> BinaryIO:
    """Open a part to go on with; never through a link that someone put in its place."""
    handle = os.open(
        part, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
    )
    return os.fdopen(handle, "ab")


def _version(response: requests.Response) -> str:
    """Return what a server can tell the same file by later: a strong ETag, or the date of the last change."""
    if _encoding(response) != "identity":
        return ""  # its pieces are counted in other bytes
    tag = response.headers.get("ETag", "")
    version = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
    return version if len(version) <= _MAX_VERSION else ""


def _hash(url: str) -> str:
    return hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()


def version_file(part: Path) -> Path:
    """Return where it is noted which version of the file a part is of; a part without it is not gone on with."""
    return part.with_name(f"{part.name}.version")


def forget(part: Path) -> None:
    """Delete a part and the note of its version."""
    part.unlink(missing_ok=True)
    version_file(part).unlink(missing_ok=True)


def kept(part: Path) -> str:
    """Return what to do about a part that is not whole."""
    have = part.stat().st_size if part.exists() else 0
    return (
        f"the {have:,} bytes that came are kept, run it again to go on"
        if have
        else "run it again later"
    )


def _cause(error: Exception) -> str:
    """Return what went wrong in a line, without the address and the layers around it."""
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "reason", inner)).partition("\n")[0][:300]
