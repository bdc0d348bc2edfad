import dataclasses
import gzip
import hashlib
import io
import json
import os
import pickle
import resource
import time
import zipfile
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import requests
import torch

from tests.in_a_child import message_of
from tests.model_zoo.conftest import OTHER, PAYLOAD
from virtex_det.errors import UserError
from virtex_det.model_zoo import transfer
from virtex_det.model_zoo.cache import check
from virtex_det.model_zoo.catalog import Record, find
from virtex_det.model_zoo.download import fetch

SHA256 = hashlib.sha256(PAYLOAD).hexdigest()


@pytest.fixture
def record(server) -> Record:
    return Record(
        name="weights",
        family="Test",
        format="virtex",
        architecture="R-50",
        pretraining="none",
        paper="none",
        config="detectron2/scenes_segm.yaml",
        urls=[f"{server.url}/weights.pth?dl=1"],
        licence=None,
        page="https://example.org",
        sha256=SHA256,
    )


@pytest.fixture
def record_without_hash(record) -> Record:
    return dataclasses.replace(record, sha256=None)


def leftovers(cache) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if not path.name.endswith(".lock"))


# --- a server that behaves


def test_a_file_is_fetched_whole_under_its_name(record, cache):
    path = fetch(record)
    assert path == cache / "weights.pth" and path.read_bytes() == PAYLOAD
    assert leftovers(cache) == ["weights.pth", "weights.pth.sha256.json"]


def test_a_cached_file_is_not_downloaded_again(record, server):
    fetch(record)
    fetch(record)
    assert len(server.requests) == 1


def test_an_unchanged_cached_file_is_not_read_again(record, monkeypatch):
    fetch(record)
    monkeypatch.setattr(
        "virtex_det.model_zoo.cache.file_sha256", lambda path: pytest.fail("it was read")
    )
    fetch(record)


def test_the_hash_is_stored_before_the_file_gets_its_name(record, cache, monkeypatch):
    rename = Path.replace

    def stop_at_the_file(part: Path, path: Path) -> None:
        if path == cache / "weights.pth":
            raise KeyboardInterrupt
        rename(part, path)

    monkeypatch.setattr(Path, "replace", stop_at_the_file)
    with pytest.raises(KeyboardInterrupt):
        fetch(record)
    assert (
        SHA256 in (cache / "weights.pth.sha256.json").read_text()
        and not (cache / "weights.pth").exists()
    )


def test_a_slow_server_is_waited_for(record, server):
    server.pause = 0.3
    assert fetch(record).read_bytes() == PAYLOAD


def test_the_first_digits_of_a_hash_are_enough(record):
    assert fetch(dataclasses.replace(record, sha256=SHA256[:8])).exists()


def test_two_processes_at_the_same_time_make_one_request(record, server):
    server.pause = 0.3
    with get_context("fork").Pool(2) as processes:
        paths = processes.map(fetch, [record, record], chunksize=1)
    assert paths[0] == paths[1] and paths[0].read_bytes() == PAYLOAD
    assert len(server.requests) == 1


# --- a server that does not


def test_a_broken_connection_is_resumed_where_it_ended(record, server):
    server.cut_after, server.cuts = 30_000, 2
    assert fetch(record).read_bytes() == PAYLOAD
    assert [request.get("Range") for request in server.requests] == [
        None,
        "bytes=30000-",
        "bytes=60000-",
    ]


def test_without_range_support_a_broken_download_starts_again(record, server):
    server.ranges, server.cut_after, server.cuts = False, 30_000, 1
    assert fetch(record).read_bytes() == PAYLOAD


def test_a_piece_that_was_not_requested_is_not_appended(record, server):
    server.cut_after, server.cuts, server.wrong_piece = 30_000, 1, True
    assert fetch(record).read_bytes() == PAYLOAD


def test_a_broken_download_is_continued_by_the_next_run(record, server, cache):
    server.cut_after = 10_000
    with pytest.raises(UserError, match="40,000 downloaded bytes are kept"):
        fetch(record)
    assert not (cache / "weights.pth").exists()
    server.cut_after = 0
    assert fetch(record).read_bytes() == PAYLOAD
    assert server.requests[-1]["Range"] == "bytes=40000-"
    assert leftovers(cache) == ["weights.pth", "weights.pth.sha256.json"]


@pytest.mark.parametrize("trouble", [{"failing": 100}, {"status": 404}, {"location": "/page"}])
def test_a_part_is_kept_when_the_server_fails(record, server, trouble):
    server.cut_after = 10_000
    with pytest.raises(UserError):
        fetch(record)
    server.cut_after, before = 0, vars(server).copy()
    vars(server).update(trouble)
    with pytest.raises(UserError):
        fetch(record)
    vars(server).update({name: before[name] for name in trouble})
    assert fetch(record).read_bytes() == PAYLOAD
    assert server.requests[-1]["Range"] == "bytes=40000-"


def test_a_part_is_not_continued_when_the_remote_file_has_changed(record_without_hash, server):
    server.cut_after = 10_000
    with pytest.raises(UserError):
        fetch(record_without_hash)
    server.cut_after, server.payload = 0, OTHER
    assert fetch(record_without_hash).read_bytes() == OTHER


def test_a_whole_part_is_not_downloaded_again(record, server, cache):
    server.cut_after = 10_000
    with pytest.raises(UserError):
        fetch(record)
    (cache / "weights.pth.part").write_bytes(PAYLOAD)
    server.cut_after = 0
    assert fetch(record).read_bytes() == PAYLOAD
    assert server.requests[-1]["Range"] == f"bytes={len(PAYLOAD)}-"


def test_a_file_shorter_than_the_server_says_is_an_error(record, server, cache):
    server.excess = 100
    with pytest.raises(UserError, match="cut short 4 times"):
        fetch(record)
    assert not (cache / "weights.pth").exists()


def test_another_size_than_the_catalogues_is_an_error(record_without_hash, cache):
    with pytest.raises(UserError, match="has 102,400 bytes, but the catalogue says 7"):
        fetch(dataclasses.replace(record_without_hash, size=7))
    assert leftovers(cache) == []


def test_wrong_bytes_are_an_error_and_are_deleted(record, server, cache):
    server.payload = OTHER
    with pytest.raises(UserError, match=f"the catalogue says {SHA256}"):
        fetch(record)
    assert "weights.pth" not in leftovers(cache) and "weights.pth.part" not in leftovers(cache)


def test_an_empty_file_is_an_error(record_without_hash, server):
    server.payload = b""
    with pytest.raises(UserError, match="empty"):
        fetch(record_without_hash)


def test_the_error_404_says_where_to_look(record, server):
    server.status = 404
    with pytest.raises(UserError, match=r"404 .*Not Found[^$]*example\.org"):
        fetch(record)
    assert len(server.requests) == 1


def test_a_busy_server_is_asked_again(record, server):
    server.failing = 2
    assert fetch(record).read_bytes() == PAYLOAD


def test_a_server_that_stays_busy_is_an_error(record, server):
    server.failing = 100
    with pytest.raises(UserError, match="503"):
        fetch(record)


def test_a_redirect_to_a_web_page_is_an_error_and_nothing_is_kept(
    record_without_hash, server, cache
):
    server.location = f"{server.url}/page"
    with pytest.raises(UserError, match="web page"):
        fetch(record_without_hash)
    assert leftovers(cache) == []


def test_a_redirect_to_the_file_is_followed(record, server):
    server.location = f"{server.url}/file"
    assert fetch(record).read_bytes() == PAYLOAD


def test_the_next_address_is_tried_when_one_fails(record, server):
    dead = "http://127.0.0.1:9/weights.pth"
    assert fetch(dataclasses.replace(record, urls=[dead, *record.urls])).read_bytes() == PAYLOAD


def test_no_network_is_one_message_that_names_address_and_place(record, cache):
    with pytest.raises(UserError) as caught:
        fetch(dataclasses.replace(record, urls=["http://127.0.0.1:9/weights.pth"]))
    message = str(caught.value)
    assert (
        "http://127.0.0.1:9/weights.pth: no connection" in message
        and str(cache / "weights.pth") in message
    )
    assert len(message.splitlines()) == 3


def test_the_download_from_a_silent_server_is_stopped(record, server, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT_SECONDS", (1.0, 0.05))
    monkeypatch.setattr(transfer, "RETRIES", 1)
    server.pause = 600.0
    begun = time.monotonic()
    with pytest.raises(UserError, match="no connection"):
        fetch(record)
    assert time.monotonic() - begun < 300


# --- what was fetched before


def test_the_error_for_a_corrupt_cached_file_says_what_to_delete(record, server):
    path = fetch(record)
    path.write_bytes(PAYLOAD[:-1] + b"\x00")
    with pytest.raises(UserError, match=f"rm '{path}'"):
        fetch(record)
    path.unlink()
    assert fetch(record).read_bytes() == PAYLOAD


def test_a_thorough_check_finds_a_change_that_keeps_size_and_time(record):
    path = fetch(record)
    status = path.stat()
    path.write_bytes(PAYLOAD[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert check(record, path) == SHA256
    with pytest.raises(UserError, match="sha256"):
        check(record, path, thorough=True)


def test_a_touched_file_is_read_again_and_accepted(record):
    path = fetch(record)
    os.utime(path, (1, 1))
    assert fetch(record) == path


def test_a_remote_file_without_a_known_hash_may_not_change_later(record_without_hash, server):
    path = fetch(record_without_hash)
    path.unlink()
    server.payload = OTHER
    with pytest.raises(UserError, match=f"it was {SHA256} when weights was first downloaded"):
        fetch(record_without_hash)
    assert not path.exists()


def test_a_file_put_there_by_hand_is_used(record_without_hash, server, cache):
    cache.mkdir()
    (cache / "weights.pth").write_bytes(OTHER)
    assert fetch(record_without_hash).read_bytes() == OTHER
    assert not server.requests


def test_the_error_for_weights_without_an_address_names_their_page(record, cache):
    manual = dataclasses.replace(record, urls=[], note="In a folder.")
    with pytest.raises(
        UserError, match="by hand from https://example.org to .*weights.pth. In a folder"
    ):
        fetch(manual)


# --- the machine


def test_a_cache_that_cannot_be_written_is_named(record, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIRTEX_DET_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="Set VIRTEX_DET_CACHE"):
        fetch(record)


def test_a_read_only_cache_serves_what_it_has(record_without_hash, cache, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    cache.mkdir()
    (cache / "weights.pth").write_bytes(PAYLOAD)
    monkeypatch.setattr("virtex_det.model_zoo.cache.write_atomically", refuse)
    assert fetch(record_without_hash).read_bytes() == PAYLOAD


def test_a_full_disk_leaves_a_part_that_the_next_run_continues(record, server, cache):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(UserError, match="free disk space"):
            fetch(record)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (cache / "weights.pth").exists()
    assert fetch(record).read_bytes() == PAYLOAD
    assert server.requests[-1]["Range"] == "bytes=50000-"


def test_offline_the_network_is_not_used(record, server, monkeypatch):
    monkeypatch.setenv("VIRTEX_DET_OFFLINE", "1")
    with pytest.raises(UserError, match="VIRTEX_DET_OFFLINE"):
        fetch(record)
    assert not server.requests


def test_offline_a_cached_file_is_used(record, monkeypatch):
    path = fetch(record)
    monkeypatch.setenv("VIRTEX_DET_OFFLINE", "1")
    assert fetch(record) == path


def test_a_mirror_folder_is_tried_first_also_offline(record, server, tmp_path, monkeypatch):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "weights.pth").write_bytes(PAYLOAD)
    monkeypatch.setenv("VIRTEX_DET_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("VIRTEX_DET_OFFLINE", "1")
    assert fetch(record).read_bytes() == PAYLOAD
    assert not server.requests


def test_a_mirror_without_the_file_is_skipped(record, tmp_path, monkeypatch):
    monkeypatch.setenv("VIRTEX_DET_MIRROR", str(tmp_path))
    assert fetch(record).read_bytes() == PAYLOAD


def test_a_mirror_with_another_file_is_skipped(record, tmp_path, monkeypatch):
    (tmp_path / "weights.pth").write_bytes(b"another")
    monkeypatch.setenv("VIRTEX_DET_MIRROR", str(tmp_path))
    assert fetch(record).read_bytes() == PAYLOAD


def test_the_proxy_of_the_environment_is_used(record, server, monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    elsewhere = dataclasses.replace(record, urls=["http://weights.invalid/weights.pth"])
    assert fetch(elsewhere).read_bytes() == PAYLOAD
    assert server.requests[0]["Host"] == "weights.invalid"


# --- what comes with status 200 and is not the file, where neither hash nor size is known


def zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", content)
    return stream.getvalue()


def torch_file(**options) -> bytes:
    stream = io.BytesIO()
    torch.save({"a": torch.arange(1000.0)}, stream, **options)
    return stream.getvalue()


NEW, OLD = torch_file(), torch_file(_use_new_zipfile_serialization=False)
PICKLED = pickle.dumps({"model": {"a": np.zeros(1000)}}, 2)
PAGE = b"<!DOCTYPE html><html><title>Sign in</title></html>"
INSTEAD = {
    "a web page": PAGE,
    "a web page after blanks": b"\n\n   \t" + PAGE,
    "a web page after a byte order mark": b"\xef\xbb\xbf" + PAGE,
    "a web page after a comment": b"<!-- " + b"x" * 600 + b" -->" + PAGE,
    "a web page in UTF-16": PAGE.decode().encode("utf-16"),
    "a web page after text": b"Warning: line 3\n" + PAGE,
    "a compressed web page": gzip.compress(PAGE),
    "XML": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "JSON": b'{"error": "quota exceeded"}',
    "JSON in a list": b'[{"error": "quota exceeded"}]',
    "text": b"Not Found",
    "one line break": b"\n",
    "a Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    ),
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "zeros": bytes(10_000),
    "an archive of something else": zipped(PAGE),
    "an archive in gzip": gzip.compress(NEW),
    "a tar archive": b"weights.pth" + bytes(10_000),
    "weights cut in half": PAYLOAD[:51_200],
    "weights without their last byte": PAYLOAD[:-1],
    "weights with an extra byte": PAYLOAD + b"\n",
    "a header alone": PAYLOAD[:200],
    "a torch file cut in half": NEW[: len(NEW) // 2],
    "a torch file without its last byte": NEW[:-1],
    "a torch file with zeros in its middle": NEW[:1500] + bytes(1000) + NEW[2500:],
    "an old torch file cut in half": OLD[: len(OLD) // 2],
    "an old torch file without its last byte": OLD[:-1],
    "a pickle cut in half": PICKLED[: len(PICKLED) // 2],
    "a pickle without its end": PICKLED[:-1],
    "four bytes of a zip archive": NEW[:4],
}


@pytest.mark.parametrize("name", INSTEAD)
def test_a_file_that_is_not_whole_weights_is_not_kept(name, record_without_hash, server, cache):
    server.payload = INSTEAD[name]
    with pytest.raises(
        UserError, match=r"(?s)weights was not downloaded:.*http://.*Download it by hand from"
    ) as caught:
        fetch(record_without_hash)
    assert leftovers(cache) == []
    assert len(str(caught.value).splitlines()) == 3
    server.payload = PAYLOAD
    assert fetch(record_without_hash).read_bytes() == PAYLOAD


@pytest.mark.parametrize("payload", [NEW, OLD, PICKLED, PAYLOAD])
def test_whole_weights_of_each_form_are_kept(payload, record_without_hash, server):
    server.payload = payload
    assert fetch(record_without_hash).read_bytes() == payload


@pytest.mark.parametrize("name", ["JSON", "a torch file cut in half"])
def test_a_file_cached_by_an_earlier_version_is_checked_again(name, record_without_hash, cache):
    cache.mkdir()
    path = cache / "weights.pth"
    path.write_bytes(INSTEAD[name])
    status = path.stat()
    note = {
        "sha256": hashlib.sha256(INSTEAD[name]).hexdigest(),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
    }
    (cache / "weights.pth.sha256.json").write_text(json.dumps(note))
    with pytest.raises(UserError, match=f"Delete it to download it again: rm '{path}'"):
        fetch(record_without_hash)


def head(*lines: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *lines, "", ""]).encode("latin1")


LENGTH = f"Content-Length: {len(PAYLOAD)}"
ANSWERS = {
    "a length that is a word": (head("Content-Length: abc") + PAYLOAD, True),
    "a length with a sign": (head("Content-Length: +102400") + PAYLOAD, True),
    "a length below nothing": (head("Content-Length: -5") + PAYLOAD, True),
    "a length in full-width digits": (head("Content-Length: \xb2\xb3") + PAYLOAD, True),
    "a length of 10^30": (head(f"Content-Length: {10**30}") + PAYLOAD, False),
    "a length of 10^17": (head(f"Content-Length: {10**17}") + PAYLOAD, False),
    "two lengths": (head("Content-Length: 5", "Content-Length: 7") + PAYLOAD, False),
    "a length that is short": (head("Content-Length: 500") + PAYLOAD[:500], False),
    "no length": (head() + PAYLOAD, True),
    "no length, and cut": (head() + PAYLOAD[:50_000], False),
    "HTTP/1.0, and cut": (head(status="HTTP/1.0 200 OK") + PAYLOAD[:50_000], False),
    "chunks": (
        head("Transfer-Encoding: chunked") + b"19000\r\n" + PAYLOAD + b"\r\n0\r\n\r\n",
        True,
    ),
    "chunks, and cut": (head("Transfer-Encoding: chunked") + b"19000\r\n" + PAYLOAD[:5000], False),
    "chunks of an unknown size": (head("Transfer-Encoding: chunked") + b"zz\r\n" + PAYLOAD, False),
    "an empty body": (head("Content-Length: 0"), False),
    "no content": (head(status="HTTP/1.1 204 No Content"), False),
    "several choices": (head(LENGTH, status="HTTP/1.1 300 Multiple Choices") + PAYLOAD, False),
    "not modified": (head(status="HTTP/1.1 304 Not Modified"), False),
    "a status of its own": (head(LENGTH, status="HTTP/1.1 299 Odd") + PAYLOAD, False),
    "a piece that was not asked for": (
        head(
            "Content-Length: 400",
            "Content-Range: bytes 0-399/102400",
            status="HTTP/1.1 206 Partial",
        )
        + PAYLOAD[:400],
        False,
    ),
    "a piece of another place": (
        head("Content-Length: 4", "Content-Range: bytes 7-10/102400", status="HTTP/1.1 206 Partial")
        + b"abcd",
        False,
    ),
    "a piece of nowhere": (head(LENGTH, status="HTTP/1.1 206 Partial") + PAYLOAD, False),
    "compressed on the way": (
        head("Content-Encoding: gzip", f"Content-Length: {len(gzip.compress(PAYLOAD, mtime=0))}")
        + gzip.compress(PAYLOAD, mtime=0),
        True,
    ),
    "compressed as it says, and not": (head("Content-Encoding: gzip", LENGTH) + PAYLOAD, False),
    "a redirect to a bad address": (
        head("Location: http://[bad", status="HTTP/1.1 302 Found"),
        False,
    ),
    "a redirect to a bad port": (
        head("Location: http://localhost:abc/", status="HTTP/1.1 302 Found"),
        False,
    ),
    "a redirect to an empty host": (
        head("Location: http:///x", status="HTTP/1.1 302 Found"),
        False,
    ),
    "a redirect to a long name": (
        head(f"Location: http://{'a' * 300}/", status="HTTP/1.1 302 Found"),
        False,
    ),
    "a redirect to dots": (head("Location: http://a..b/", status="HTTP/1.1 302 Found"), False),
    "a redirect in circles": (head("Location: /", status="HTTP/1.1 302 Found"), False),
    "a redirect to a file": (
        head("Location: file:///etc/passwd", status="HTTP/1.1 302 Found"),
        False,
    ),
    "a redirect to ftp": (head("Location: ftp://localhost/x", status="HTTP/1.1 302 Found"), False),
    "a redirect to data": (head("Location: data:text/plain,x", status="HTTP/1.1 302 Found"), False),
    "a redirect to nowhere": (head(status="HTTP/1.1 302 Found"), False),
    "bytes that are no answer": (b"\x00\x01\x02\xff" * 100, False),
    "a head without end": (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 1000, False),
    "a line without end": (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000, False),
    "a status that is a word": (b"HTTP/1.1 abc OK\r\n\r\n" + PAYLOAD, False),
    "nothing at all": (b" ", False),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_odd_response_gives_the_file_or_one_error(name, record_without_hash, server, cache):
    server.raw, is_whole = ANSWERS[name]
    if is_whole:
        assert fetch(record_without_hash).read_bytes() == PAYLOAD
        return
    with pytest.raises(UserError, match="weights was not downloaded") as caught:
        fetch(record_without_hash)
    assert len(str(caught.value).splitlines()) == 3
    assert "weights.pth" not in leftovers(cache)


def test_a_redirect_from_https_to_http_is_refused(record, monkeypatch):
    def sent_on(self, request, **options):
        response = requests.Response()
        response.request, response.url, response.raw = request, request.url, io.BytesIO(PAYLOAD)
        response.status_code = 302 if request.url.startswith("https:") else 200
        response.headers["Location"] = "http://localhost/weights.pth"
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", sent_on)
    with pytest.raises(UserError, match="redirected from https to http"):
        fetch(dataclasses.replace(record, urls=["https://localhost/weights.pth"]))


def test_the_download_from_an_endless_server_is_stopped(
    record_without_hash, server, cache, monkeypatch
):
    monkeypatch.setattr(transfer, "MAX_BYTES", 50_000)
    with pytest.raises(UserError, match="more than 50,000 bytes"):
        fetch(record_without_hash)


# --- what someone put into the cache


@pytest.mark.parametrize("suffix", [".part", ".part.version"])
@pytest.mark.parametrize("is_hard", [True, False])
def test_a_link_in_the_cache_is_not_written_through(
    record, server, cache, tmp_path, suffix, is_hard
):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    cache.mkdir()
    (cache / "weights.pth.part").write_bytes(PAYLOAD[:100])
    (cache / "weights.pth.part.version").write_text('"1"')
    link = cache / f"weights.pth{suffix}"
    link.unlink()
    os.link(secret, link) if is_hard else link.symlink_to(secret)
    assert fetch(record).read_bytes() == PAYLOAD
    assert secret.read_text() == "mine"
    assert "mine" not in str(server.requests)


def test_a_broken_link_as_a_part_writes_nothing(record, cache, tmp_path):
    cache.mkdir()
    (cache / "weights.pth.part").symlink_to(tmp_path / "made")
    fetch(record)
    assert not (tmp_path / "made").exists()


def test_a_link_as_a_lock_does_not_empty_a_file(record, cache, tmp_path):
    (tmp_path / "secret").write_text("mine")
    cache.mkdir()
    (cache / ".weights.pth.lock").symlink_to(tmp_path / "secret")
    fetch(record)
    assert (tmp_path / "secret").read_text() == "mine"


def test_a_link_from_the_mirror_is_followed_and_copied(record, tmp_path, monkeypatch):
    (tmp_path / "store").write_bytes(PAYLOAD)
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "weights.pth").symlink_to(tmp_path / "store")
    monkeypatch.setenv("VIRTEX_DET_MIRROR", str(tmp_path / "mirror"))
    assert not fetch(record).is_symlink()


@pytest.mark.parametrize("kind", ["pipe", "folder"])
@pytest.mark.parametrize(
    "name",
    ["weights.pth", "weights.pth.part", "weights.pth.sha256.json", "weights.pth.part.version"],
)
def test_a_pipe_or_a_folder_in_the_cache_does_not_hang(record, cache, kind, name):
    cache.mkdir()
    if name != "weights.pth":
        (cache / "weights.pth.part").touch()
    if name == "weights.pth.sha256.json":
        (cache / "weights.pth").write_bytes(PAYLOAD)
    (cache / name).unlink(missing_ok=True)
    os.mkfifo(cache / name) if kind == "pipe" else (cache / name).mkdir()
    said = message_of(lambda: fetch(record))
    assert not said.startswith(("KILLED", "TRACEBACK")), said
    assert said == "ACCEPTED" or str(cache) in said


@pytest.mark.parametrize(
    "note", ["[1]", "{}", '"x"', "[" * 100_000, '{"sha256": 3}', "\x00", '{"other": 1}']
)
def test_a_note_that_is_damaged_is_named(record, cache, note):
    fetch(record)
    (cache / "weights.pth.sha256.json").write_text(note)
    with pytest.raises(UserError, match=r"sha256.json is damaged.*Delete it"):
        fetch(record)


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/passwd", "..", "", "a\0b", "\udc80", "x" * 100_000]
)
def test_a_name_that_leads_out_of_the_cache_is_refused(name):
    with pytest.raises(UserError, match="model zoo has no weights"):
        find(name)


@pytest.mark.parametrize(
    "url",
    ["http://a/x.p/th", "http://a/..", "http://a/x." + "y" * 300, "http://a/x.\x00", "http://a/"],
)
def test_a_file_keeps_its_name_whatever_the_address(record, url):
    assert dataclasses.replace(record, urls=[url]).file_name == "weights.pth"
