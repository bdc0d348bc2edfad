"""Downloads from faulty servers and proxies, on faulty disks, with kills: the file or an error."""

import dataclasses
import gzip
import json
import os
import shutil
import signal
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from tests.in_a_child import message_of
from tests.model_zoo.conftest import OTHER, PAYLOAD, answer
from virtex_det.checkpoint.locating import local_path
from virtex_det.errors import UserError
from virtex_det.model_zoo import transfer
from virtex_det.model_zoo.catalog import Record, record_of
from virtex_det.model_zoo.download import fetch

SIZE, HAVE = len(PAYLOAD), 30_000
JSON, PAGE = b'{"error": "quota exceeded"}', b"<!DOCTYPE html><title>Sign in</title>"


@pytest.fixture
def record(server) -> Record:
    """A file of which neither hash nor size is known: nothing but what the server says can tell."""
    fields = ("family", "format", "architecture", "pretraining", "paper", "config")
    return Record(
        name="weights", urls=[f"{server.url}/weights.pth"], licence=None, page="https://example.org",
        **dict.fromkeys(fields, ""),
    )  # fmt: skip


def kept(cache: Path) -> list[str]:
    return (
        sorted(path.name for path in cache.iterdir() if not path.name.endswith(".lock"))
        if cache.is_dir()
        else []
    )


def refusal(record: Record, cache: Path, *, lines: int = 3) -> str:
    """The one message; nothing wrong has become a file of the cache."""
    with pytest.raises(UserError) as caught:
        fetch(record)
    message = str(caught.value)
    assert len(message.splitlines()) == lines and "Traceback" not in message, message
    assert "weights.pth" not in kept(cache)
    return message


# --- a part that is gone on with: two files must never become one

DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
WHOLE = answer(PAYLOAD, ETag='"a"', Content_Length=SIZE)


def rest(
    body: bytes = OTHER[HAVE:], piece: str = f"bytes {HAVE}-{SIZE - 1}/{SIZE}", **headers: str | int
) -> bytes:
    told = {"Content_Range": piece} if piece else {}
    return answer(body, "206 Partial Content", Content_Length=len(body), **told, **headers)


def from_a_date(body: bytes) -> bytes:
    return answer(body, Last_Modified=DATE, Content_Length=SIZE)


REST = OTHER[HAVE:]
BEGIN, LAST = HAVE, SIZE - 1

# Second responses after a part of PAYLOAD; bodies are of another file.
SECONDS = {
    "a rest of another version": rest(ETag='"b"'),
    "a rest without a version": rest(),
    "a rest of a weak version": rest(ETag='W/"a"'),
    "a rest with only a date": rest(Last_Modified=DATE),
    "a rest from the beginning": rest(PAYLOAD, f"bytes 0-{LAST}/{SIZE}", ETag='"a"'),
    "a rest from a later place": rest(REST[1:], f"bytes {BEGIN + 1}-{LAST}/{SIZE}", ETag='"a"'),
    "a rest from an earlier place": rest(
        OTHER[HAVE - 1 :], f"bytes {BEGIN - 1}-{LAST}/{SIZE}", ETag='"a"'
    ),
    "a rest that ends before its beginning": rest(REST, f"bytes {BEGIN}-7/{SIZE}", ETag='"a"'),
    "a rest that ends after the file": rest(REST, f"bytes {BEGIN}-{SIZE}/{SIZE}", ETag='"a"'),
    "a rest that ends before the file": rest(
        REST[:10], f"bytes {BEGIN}-{BEGIN + 9}/{SIZE}", ETag='"a"'
    ),
    "a rest of an unknown size": rest(REST, f"bytes {BEGIN}-{LAST}/*", ETag='"a"'),
    "a rest of a smaller size": rest(REST, f"bytes {BEGIN}-{LAST}/{HAVE}", ETag='"a"'),
    "a rest without a place": rest(REST, "", ETag='"a"'),
    "a rest in another unit": rest(REST, f"items {BEGIN}-{LAST}/{SIZE}", ETag='"a"'),
    "a rest in superscript digits": rest(REST, f"bytes {BEGIN}-{LAST}/\xb2\xb3", ETag='"a"'),
    "a rest in words": rest(REST, "bytes from there to the end", ETag='"a"'),
    "several rests": rest(REST, "", ETag='"a"', Content_Type="multipart/byteranges; boundary=x"),
    "a compressed rest": rest(gzip.compress(REST), ETag='"a"', Content_Encoding="gzip"),
    "no rest, of another size": answer(
        status="416 No", Content_Range=f"bytes */{SIZE}", Content_Length=0
    ),
    "no rest, of another version": answer(
        status="416 No", Content_Range=f"bytes */{HAVE}", ETag='"b"', Content_Length=0
    ),
    "no rest, without a reason": answer(status="416 No", Content_Length=0),
}


@pytest.mark.parametrize("name", SECONDS)
def test_only_the_rest_of_the_same_file_is_appended(name, record, server):
    server.answers = [answer(PAYLOAD[:HAVE], ETag='"a"', Content_Length=SIZE), SECONDS[name], WHOLE]
    assert fetch(record).read_bytes() == PAYLOAD
    assert server.requests[1]["Range"] == f"bytes={HAVE}-" and "Range" not in server.requests[2]


@pytest.mark.parametrize("date", ["", "Thu, 22 Oct 2015 07:28:00 GMT"])
def test_with_a_date_the_rest_of_another_file_is_not_appended(date, record, server):
    told = {"Last_Modified": date} if date else {}
    server.answers = [from_a_date(PAYLOAD[:HAVE]), rest(**told), answer(OTHER, Content_Length=SIZE)]
    assert fetch(record).read_bytes() == OTHER


@pytest.mark.parametrize(
    "by", [{"ETag": '"a"'}, {"Last_Modified": DATE}, {"ETag": '"\xe4"', "Last_Modified": DATE}]
)
def test_the_rest_of_the_same_file_is_appended(by, record, server):
    server.answers = [answer(PAYLOAD[:HAVE], Content_Length=SIZE, **by), rest(PAYLOAD[HAVE:], **by)]
    assert fetch(record).read_bytes() == PAYLOAD
    assert server.requests[1]["If-Range"] == by.get("ETag", DATE)


def test_a_broken_rest_is_continued(record, server):
    cut = answer(
        PAYLOAD[HAVE:50_000],
        "206 Partial",
        ETag='"a"',
        Content_Range=f"bytes {HAVE}-{LAST}/{SIZE}",
        Content_Length=SIZE - HAVE,
    )
    piece = f"bytes 50000-{SIZE - 1}/{SIZE}"
    server.answers = [
        answer(PAYLOAD[:HAVE], ETag='"a"', Content_Length=SIZE),
        cut,
        rest(PAYLOAD[50_000:], piece, ETag='"a"'),
    ]
    assert fetch(record).read_bytes() == PAYLOAD


def test_a_rest_beyond_the_end_is_refused(record, server, cache):
    body = b"%x\r\n" % (SIZE - HAVE + 5) + PAYLOAD[HAVE:] + b"extra\r\n0\r\n\r\n"
    piece = f"bytes {HAVE}-{SIZE - 1}/{SIZE}"
    long = answer(body, "206 Partial", ETag='"a"', Content_Range=piece, Transfer_Encoding="chunked")
    server.answers = [answer(PAYLOAD[:HAVE], ETag='"a"', Content_Length=SIZE), long]
    assert f"sends {SIZE + 5:,} bytes of a file of {SIZE:,}" in refusal(record, cache)
    assert kept(cache) == []


@pytest.mark.parametrize("payload", [PAYLOAD, OTHER])
def test_200_instead_of_a_rest_replaces_the_part(payload, record, server):
    first = answer(PAYLOAD[:HAVE], ETag='"a"', Content_Length=SIZE)
    server.answers = [first, answer(payload, ETag='"b"', Content_Length=SIZE)]
    assert fetch(record).read_bytes() == payload


def test_a_file_that_became_shorter_is_not_kept(record, server, cache):
    server.answers = [
        answer(PAYLOAD[:HAVE], ETag='"a"', Content_Length=SIZE),
        answer(status="416 No", Content_Range=f"bytes */{HAVE}", Content_Length=0),
    ]
    assert "cut short or damaged" in refusal(record, cache)
    assert kept(cache) == []


REFUSALS = (401, 403, 404, 410, 451, 500, 503)


@pytest.mark.parametrize(
    "trouble",
    [
        *(answer(PAGE, f"{status} Sorry", Content_Length=len(PAGE)) for status in REFUSALS),
        *(answer(body, Content_Length=len(body)) for body in (PAGE, JSON, b"Not Found")),
        *(answer(status=f"{status} Odd") for status in (204, 205, 300, 304)),
        answer(PAYLOAD[HAVE:], "206 Partial", Content_Length=5),
        b"\x00",
    ],
)
def test_a_part_is_kept_after_any_other_response(trouble, record, server, cache, monkeypatch):
    monkeypatch.setattr(transfer, "RETRIES", 0)
    server.answers = [answer(PAYLOAD[:HAVE], ETag='"a"', Content_Length=SIZE)]
    refusal(record, cache)
    server.answers = [trouble]
    refusal(record, cache)
    # After a piece of an unknown file the part is useless.
    is_kept = b"206" not in trouble[:20]
    assert ("weights.pth.part" in kept(cache)) == is_kept
    server.answers = [rest(PAYLOAD[HAVE:], ETag='"a"') if is_kept else WHOLE]
    assert fetch(record).read_bytes() == PAYLOAD


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\xff\xfe\x00",
        b'"a"',
        b"{",
        b"[1]",
        b'{"version": 3, "address": ""}',
        b'{"version": "\\n"}',
        json.dumps({"version": "a\r\nX: y", "address": ""}).encode(),
        b"[" * 5000,
        b" " * 100_000,
    ],
)
def test_a_part_without_a_valid_note_of_its_version_is_replaced(note, record, server, cache):
    cache.mkdir()
    (cache / "weights.pth.part").write_bytes(OTHER[:HAVE])
    (cache / "weights.pth.part.version").write_bytes(note)
    assert fetch(record).read_bytes() == PAYLOAD
    assert "Range" not in server.requests[0]
    assert kept(cache) == ["weights.pth", "weights.pth.sha256.json"]


def test_a_part_of_one_address_is_not_continued_from_another(record, server, cache):
    server.answers = [answer(OTHER[:HAVE], ETag='"1"', Content_Length=SIZE)]
    refusal(dataclasses.replace(record, urls=[f"{server.url}/mirror/weights.pth"]), cache)
    server.answers = [answer(PAYLOAD, ETag='"1"', Content_Length=SIZE)]
    assert fetch(record).read_bytes() == PAYLOAD
    assert "Range" not in server.requests[-1]


def test_the_note_of_a_part_does_not_contain_a_password(record, server, cache):
    server.answers = [answer(PAYLOAD[:HAVE], ETag='"1"', Content_Length=SIZE)]
    secret = server.url.replace("//", "//me:opensesame@")
    refusal(dataclasses.replace(record, urls=[f"{secret}/weights.pth"]), cache)
    assert "opensesame" not in (cache / "weights.pth.part.version").read_text()


def test_a_very_long_version_is_ignored(record, server):
    server.answers = [answer(PAYLOAD[:HAVE], ETag=f'"{"a" * 5000}"', Content_Length=SIZE), WHOLE]
    assert fetch(record).read_bytes() == PAYLOAD
    assert "Range" not in server.requests[1]


# --- one answer


@pytest.mark.parametrize(
    "status",
    [
        *(201, 202, 203, 204, 205, 206, 207, 226, 299, 300, 304, 305, 306, 399),
        *(
            400,
            401,
            402,
            403,
            404,
            405,
            406,
            407,
            408,
            409,
            410,
            412,
            413,
            414,
            416,
            418,
            421,
            425,
            426,
            429,
            431,
            451,
        ),
        *(500, 501, 502, 503, 504, 505, 508, 511, 520, 521, 529, 599, 999),
    ],
)
def test_any_status_but_200_is_an_error(status, record, server, cache):
    server.answers = [
        answer(
            b"" if status in (204, 304) else PAYLOAD, f"{status} Some Reason", Content_Length=SIZE
        )
    ]
    assert f"the server answers {'with status ' if status < 400 else ''}{status}" in refusal(
        record, cache
    )
    assert kept(cache) == []


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again_whatever_its_retry_after(status, record, server):
    later = {"Retry_After": "31536000"} if status in (429, 503) else {}
    server.answers = [answer(b"busy", f"{status} Busy", Content_Length=4, **later), WHOLE]
    assert fetch(record).read_bytes() == PAYLOAD


def test_a_reason_is_shown_as_one_line(record, server, cache):
    server.answers = [answer(status="404 \x1b[31m gone", Content_Length=0)]
    assert "404" in refusal(record, cache)


ENCODED = {
    "gzip": (gzip.compress(PAYLOAD), "gzip", True),
    "gzip in capitals": (gzip.compress(PAYLOAD), "GZIP", True),
    "deflate": (zlib.compress(PAYLOAD), "deflate", True),
    "none, said": (PAYLOAD, "identity", True),
    "none, said with nothing": (PAYLOAD, "", True),
    "gzip, cut": (gzip.compress(PAYLOAD)[:200], "gzip", False),
    "gzip twice": (gzip.compress(gzip.compress(PAYLOAD)), "gzip, gzip", False),
    "gzip of nothing": (gzip.compress(b""), "gzip", False),
    "gzip of a page": (gzip.compress(PAGE), "gzip", False),
    "an unknown one": (PAYLOAD, "br", False),
    "nonsense": (PAYLOAD, "x" * 3000, False),
}


@pytest.mark.parametrize("name", ENCODED)
def test_a_compressed_response_gives_the_file_or_an_error(name, record, server, cache):
    body, encoding, is_right = ENCODED[name]
    server.answers = [answer(body, Content_Encoding=encoding, Content_Length=len(body))]
    if is_right:
        assert fetch(record).read_bytes() == PAYLOAD
    else:
        refusal(record, cache)


def test_a_broken_compressed_download_starts_again(record, server):
    packed = gzip.compress(PAYLOAD)
    server.answers = [
        answer(packed[:300], Content_Encoding="gzip", ETag='"a"', Content_Length=len(packed)),
        WHOLE,
    ]
    assert fetch(record).read_bytes() == PAYLOAD
    assert "Range" not in server.requests[1]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "place", ["{url}/file", "/file", "file?x=1#y", "//{host}/file", "HTTP://{host}/file"]
)
def test_a_redirect_is_followed_to_the_file(code, place, record, server):
    location = place.format(url=server.url, host=server.url.removeprefix("http://"))
    server.answers = [answer(status=f"{code} Go", Location=location, Content_Length=0), WHOLE]
    assert fetch(record).read_bytes() == PAYLOAD


BAD_PLACES = {
    "itself": "/weights.pth",
    "a file of this machine": "file:///etc/passwd",
    "a script": "javascript:alert(1)",
    "ftp": "ftp://127.0.0.1/x",
    "a file by a word": "gopher://127.0.0.1:9/x",
    "a closed port": "http://127.0.0.1:9/x",
    "a port that is none": "http://127.0.0.1:99999999/x",
    "a port of letters": "http://127.0.0.1:http/x",
    "brackets": "http://[::1",
    "no host": "http:///x",
    "bytes that are no text": "\xff\xfe",
    "a long name": "http://" + "a" * 3000,
    "a host that is no name": "http://\xe4\xe4 /x",
}


@pytest.mark.parametrize("name", BAD_PLACES)
def test_an_invalid_redirect_is_one_message(name, record, server, cache, monkeypatch):
    monkeypatch.setattr(transfer, "RETRIES", 0)
    server.answers = [answer(status="302 Go", Location=BAD_PLACES[name], Content_Length=0)]
    assert "redirected" in (said := refusal(record, cache)) or "no connection" in said
    assert kept(cache) == []


def test_redirects_in_a_circle_end(record, server, cache):
    server.answers = [answer(status="302 Go", Location="/again", Content_Length=0)]
    assert f"redirected more than {transfer.MAX_REDIRECTS} times" in refusal(record, cache)
    assert len(server.requests) == transfer.MAX_REDIRECTS + 1


def test_many_redirects_may_lead_to_the_file(record, server):
    server.answers = [
        answer(status="302 Go", Location="/again", Content_Length=0)
    ] * transfer.MAX_REDIRECTS + [WHOLE]
    assert fetch(record).read_bytes() == PAYLOAD


@pytest.mark.parametrize("status", ["302 Go", "404 Not Found", "503 Busy", "206 Partial", "403 No"])
def test_the_body_of_an_error_response_is_not_read(status, record, server, monkeypatch):
    monkeypatch.setattr(transfer, "RETRIES", 1)
    sent = []

    def without_end(out) -> None:
        out.write(answer(status=status, Location="http://127.0.0.1:9/x"))
        while sum(sent) < 64 << 20:
            out.write(bytes(1 << 16))
            sent.append(1 << 16)

    server.answers = [without_end]
    with pytest.raises(UserError):
        fetch(record)
    assert sum(sent) < 32 << 20


@pytest.mark.parametrize(
    "when", ["at once", "after a byte", "in the head", "after the head", "in the first piece"]
)
def test_a_connection_that_is_closed_is_one_message(when, record, server, cache):
    whole = answer(PAYLOAD, Content_Length=SIZE)
    ends = {
        "at once": 0,
        "after a byte": 1,
        "in the head": 20,
        "after the head": 40,
        "in the first piece": 100,
    }
    server.answers = [whole[: ends[when]]]
    refusal(record, cache)


@pytest.mark.parametrize("when", ["at once", "after a byte", "in the head", "in the first piece"])
def test_a_closed_connection_is_opened_again(when, record, server):
    whole = answer(PAYLOAD, Content_Length=SIZE)
    ends = {"at once": 0, "after a byte": 0, "in the head": 0, "in the first piece": 100}
    server.answers = [whole[: ends[when]], WHOLE]
    assert fetch(record).read_bytes() == PAYLOAD


# --- the environment


@pytest.mark.parametrize(
    "proxy",
    [
        "http://127.0.0.1:9",
        "foo://bar",
        "http://[bad",
        "socks9://x",
        "127.0.0.1:99999999",
        "http://",
        "\x7f",
    ],
)
def test_a_proxy_that_cannot_be_used_is_one_message(proxy, record, cache, monkeypatch):
    monkeypatch.setattr(transfer, "RETRIES", 0)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    assert "no connection" in refusal(
        dataclasses.replace(record, urls=["http://weights.invalid/weights.pth"]), cache
    )


@pytest.mark.parametrize(
    "status", ["200 OK", "407 Proxy Authentication Required", "502 Bad Gateway", "511 Sign In"]
)
def test_a_proxys_own_page_is_not_the_file(status, record, server, cache, monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    server.answers = [answer(PAGE, status, Content_Length=len(PAGE))]
    said = refusal(dataclasses.replace(record, urls=["http://weights.invalid/weights.pth"]), cache)
    assert "web page" in said or status[:3] in said


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("kind", ["missing", "no certificate", "empty folder"])
def test_invalid_certificates_are_named(name, kind, record, server, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "RETRIES", 0)
    (tmp_path / "no certificate").write_text("none")
    (tmp_path / "empty folder").mkdir()
    for each in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, str(tmp_path / kind))
    said = refusal(
        dataclasses.replace(record, urls=[server.url.replace("http", "https") + "/weights.pth"]),
        cache,
    )
    assert "no connection" in said and "Cannot write" not in said
    assert kind != "missing" or (name in said and str(tmp_path / kind) in said)


@pytest.mark.parametrize(
    "folder",
    ["{tmp}/file", "{tmp}/file/below", "/proc/nowhere", "{tmp}/" + "x" * 300, "~nobody-here/x"],
)
def test_an_invalid_cache_folder_is_named(folder, record, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIRTEX_DET_CACHE", folder.format(tmp=tmp_path))
    with pytest.raises(UserError, match="Set VIRTEX_DET_CACHE to"):
        fetch(record)


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), NotImplementedError("no locks here")]
)
def test_a_cache_that_cannot_be_locked_is_named(error, record, cache, monkeypatch):
    def refuse(*args, **options):
        raise error

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert "Set VIRTEX_DET_CACHE" in refusal(record, cache, lines=1)


@pytest.mark.parametrize(
    "mirror", ["~nobody-here", "{tmp}/file", "{tmp}/" + "x" * 300, "file://{tmp}", "{tmp}/pipes"]
)
def test_an_invalid_mirror_is_skipped(mirror, record, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "pipes").mkdir()
    os.mkfifo(tmp_path / "pipes" / "weights.pth")
    monkeypatch.setenv("VIRTEX_DET_MIRROR", mirror.format(tmp=tmp_path))
    assert fetch(record).read_bytes() == PAYLOAD


@pytest.mark.parametrize("mirror", ["~nobody-here", "{tmp}/empty"])
def test_offline_a_mirror_without_the_file_is_one_message(
    mirror, record, cache, tmp_path, monkeypatch
):
    monkeypatch.setenv("VIRTEX_DET_MIRROR", mirror.format(tmp=tmp_path))
    monkeypatch.setenv("VIRTEX_DET_OFFLINE", "1")
    refusal(record, cache)


def test_a_file_without_permission_is_skipped(record, tmp_path, monkeypatch):
    def refuse(path):
        raise UserError(f"{path} cannot be read: Permission denied.")

    (tmp_path / "weights.pth").write_bytes(OTHER)
    monkeypatch.setenv("VIRTEX_DET_MIRROR", str(tmp_path))
    monkeypatch.setattr("virtex_det.model_zoo.download.open_regular", refuse)
    assert fetch(record).read_bytes() == PAYLOAD


@pytest.mark.parametrize(
    "path", ["../../secret.pkl", "a/../../../secret.pkl", "..", "%2e%2e/secret.pkl", "x\0.pkl"]
)
def test_an_address_of_detectron2_leads_to_no_file_outside_of_its_cache(
    path, tmp_path, monkeypatch
):
    inside = tmp_path / "one" / "two" / "detectron2"
    inside.mkdir(parents=True)
    for folder in inside.parents[:3]:
        (folder / "secret.pkl").write_bytes(PAYLOAD)
    monkeypatch.setenv("FVCORE_CACHE", str(inside))
    monkeypatch.setenv("VIRTEX_DET_OFFLINE", "1")
    for address in (f"detectron2://{path}", f"https://dl.fbaipublicfiles.com/{path}"):
        with pytest.raises(UserError):
            local_path(address)


@pytest.mark.parametrize("number", [13, 28, 122, 5])
def test_a_note_that_cannot_be_written_is_named(number, record, server, cache, monkeypatch):
    def refuse(path, text):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(transfer, "write_atomically", refuse)
    server.answers = [WHOLE]
    assert f"Cannot write {cache / 'weights.pth.part'}: {os.strerror(number)}" in refusal(
        record, cache, lines=1
    )


def test_deleting_the_cache_during_a_download_is_one_message(record, server, cache):
    def delete(out) -> None:
        out.write(WHOLE[:50_000])
        out.flush()
        while not (cache / "weights.pth.part").exists():
            time.sleep(0.01)
        shutil.rmtree(cache)
        out.write(WHOLE[50_000:])

    server.answers = [delete]
    assert "Cannot write" in refusal(record, cache, lines=1)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_another_object_instead_of_the_lock_does_not_hang(kind, record, cache, tmp_path):
    cache.mkdir()
    lock = cache / ".weights.pth.lock"
    if kind == "pipe":
        os.mkfifo(lock)
    elif kind == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(tmp_path / "nothing")
    said = message_of(lambda: fetch(record))
    assert said == "ACCEPTED" or "Set VIRTEX_DET_CACHE" in said, said


def test_a_newly_published_file_can_be_accepted(record, server, cache):
    path = fetch(record)
    path.unlink()
    server.payload = OTHER
    said = refusal(record, cache)
    assert f"delete {path}.sha256.json" in said
    Path(f"{path}.sha256.json").unlink()
    assert fetch(record).read_bytes() == OTHER


# --- processes


def in_a_process(work: Callable[[], object]) -> int:
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    return child


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def stalling(after: int) -> Callable:
    def send(out) -> None:
        out.write(answer(PAYLOAD[:after], ETag='"a"', Content_Length=SIZE))
        out.flush()
        time.sleep(30)

    return send


@pytest.mark.parametrize("after", [0, 10_000, HAVE, SIZE - 1])
def test_a_process_killed_during_a_download_loses_only_its_last_piece(after, record, server, cache):
    server.answers = [stalling(after)]
    child = in_a_process(lambda: fetch(record))
    part = cache / "weights.pth.part"
    until(
        lambda: (
            len(server.requests) == 1
            and (after < 10_000 or (part.exists() and part.stat().st_size > 0))
        )
    )
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    have = part.stat().st_size if part.exists() else 0
    piece = f"bytes {have}-{SIZE - 1}/{SIZE}"
    server.answers = [rest(PAYLOAD[have:], piece, ETag='"a"') if have else WHOLE]
    assert fetch(record).read_bytes() == PAYLOAD
    assert kept(cache) == ["weights.pth", "weights.pth.sha256.json"]


def test_a_process_killed_before_the_file_gets_its_name_costs_one_request(
    record, server, cache, monkeypatch
):
    rename = Path.replace

    def end(part: Path, path: Path) -> None:
        os.kill(os.getpid(), signal.SIGKILL) if path == cache / "weights.pth" else rename(
            part, path
        )

    def work() -> None:
        monkeypatch.setattr(Path, "replace", end)
        fetch(record)

    server.answers = [WHOLE]
    os.waitpid(in_a_process(work), 0)
    assert "weights.pth" not in kept(cache)
    server.answers = [
        answer(status="416 No", Content_Range=f"bytes */{SIZE}", ETag='"a"', Content_Length=0)
    ]
    assert fetch(record).read_bytes() == PAYLOAD


def test_a_waiting_process_continues_when_the_first_is_killed(record, server, cache):
    server.answers = [
        stalling(HAVE),
        rest(PAYLOAD[20_000:], f"bytes 20000-{SIZE - 1}/{SIZE}", ETag='"a"'),
        WHOLE,
    ]
    first = in_a_process(lambda: fetch(record))
    until(lambda: (cache / "weights.pth.part").exists())
    second = in_a_process(lambda: fetch(record))
    time.sleep(0.3)
    assert len(server.requests) == 1
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    assert os.waitpid(second, 0)[1] == 0
    assert (cache / "weights.pth").read_bytes() == PAYLOAD


def test_two_processes_at_a_slow_server_make_one_file(record, server, cache):
    def drip(out) -> None:
        for begin in range(0, len(WHOLE), 20_000):
            out.write(WHOLE[begin : begin + 20_000])
            out.flush()
            time.sleep(0.05)

    server.answers = [drip]
    children = [in_a_process(lambda: fetch(record)) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert (cache / "weights.pth").read_bytes() == PAYLOAD and len(server.requests) == 1


def test_any_other_address_is_downloaded_by_the_same_rules(server, cache):
    server.answers = [
        answer(PAYLOAD[:HAVE], ETag='"a"', Content_Length=SIZE),
        rest(ETag='"b"'),
        WHOLE,
    ]
    url = f"{server.url}/some/weights.pth"
    assert local_path(url).read_bytes() == PAYLOAD
    assert local_path(url).name == record_of(url).file_name
