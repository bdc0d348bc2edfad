import dataclasses
import hashlib
import os
import resource
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.model_zoo.conftest import PAYLOAD
from virtex_det.errors import UserError
from virtex_det.model_zoo import download
from virtex_det.model_zoo.cache import check
from virtex_det.model_zoo.catalog import Record
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


def test_a_cached_file_is_not_asked_for_again(record, server):
    fetch(record)
    fetch(record)
    assert len(server.requests) == 1


def test_a_cached_file_that_did_not_change_is_not_read_again(record, monkeypatch):
    fetch(record)
    monkeypatch.setattr("virtex_det.model_zoo.cache.file_sha256", lambda path: pytest.fail("it was read"))
    fetch(record)


def test_the_hash_is_noted_before_the_file_has_its_name(record, cache, monkeypatch):
    rename = Path.replace

    def stop_at_the_file(part: Path, path: Path) -> None:
        if path == cache / "weights.pth":
            raise KeyboardInterrupt
        rename(part, path)

    monkeypatch.setattr(Path, "replace", stop_at_the_file)
    with pytest.raises(KeyboardInterrupt):
        fetch(record)
    assert SHA256 in (cache / "weights.pth.sha256.json").read_text() and not (cache / "weights.pth").exists()


def test_a_slow_server_is_waited_for(record, server):
    server.pause = 0.3
    assert fetch(record).read_bytes() == PAYLOAD


def test_the_first_digits_of_a_hash_are_enough(record):
    assert fetch(dataclasses.replace(record, sha256=SHA256[:8])).exists()


def test_two_processes_that_ask_at_once_make_one_request(record, server):
    server.pause = 0.3
    with get_context("fork").Pool(2) as processes:
        paths = processes.map(fetch, [record, record], chunksize=1)
    assert paths[0] == paths[1] and paths[0].read_bytes() == PAYLOAD
    assert len(server.requests) == 1


# --- a server that does not


def test_a_cut_connection_is_taken_up_where_it_ended(record, server):
    server.cut_after, server.cuts = 30_000, 2
    assert fetch(record).read_bytes() == PAYLOAD
    assert [request.get("Range") for request in server.requests] == [None, "bytes=30000-", "bytes=60000-"]


def test_without_range_support_a_cut_download_begins_anew(record, server):
    server.ranges, server.cut_after, server.cuts = False, 30_000, 1
    assert fetch(record).read_bytes() == PAYLOAD


def test_a_piece_that_was_not_asked_for_is_not_appended(record, server):
    server.cut_after, server.cuts, server.wrong_piece = 30_000, 1, True
    assert fetch(record).read_bytes() == PAYLOAD


def test_a_download_cut_for_good_is_kept_and_gone_on_with_by_the_next_run(record, server, cache):
    server.cut_after = 10_000
    with pytest.raises(UserError, match="40,000 bytes that came are kept"):
        fetch(record)
    assert not (cache / "weights.pth").exists()
    server.cut_after = 0
    assert fetch(record).read_bytes() == PAYLOAD
    assert server.requests[-1]["Range"] == "bytes=40000-"
    assert leftovers(cache) == ["weights.pth", "weights.pth.sha256.json"]


@pytest.mark.parametrize("trouble", [{"failing": 100}, {"status": 404}, {"location": "/page"}])
def test_a_part_outlives_a_server_in_trouble(record, server, trouble):
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


def test_a_part_is_not_gone_on_with_when_the_remote_file_changed_meanwhile(record_without_hash, server):
    server.cut_after = 10_000
    with pytest.raises(UserError):
        fetch(record_without_hash)
    server.cut_after, server.payload = 0, PAYLOAD[::-1]
    assert fetch(record_without_hash).read_bytes() == PAYLOAD[::-1]


def test_a_part_that_is_whole_already_is_not_fetched_again(record, server, cache):
    server.cut_after = 10_000
    with pytest.raises(UserError):
        fetch(record)
    (cache / "weights.pth.part").write_bytes(PAYLOAD)
    server.cut_after = 0
    assert fetch(record).read_bytes() == PAYLOAD
    assert server.requests[-1]["Range"] == f"bytes={len(PAYLOAD)}-"


def test_a_server_that_promises_more_than_it_sends_is_not_believed(record, server, cache):
    server.excess = 100
    with pytest.raises(UserError, match="cut short 4 times"):
        fetch(record)
    assert not (cache / "weights.pth").exists()


def test_another_size_than_the_catalogue_says_is_an_error(record_without_hash, cache):
    with pytest.raises(UserError, match="has 102,400 bytes, and the catalogue says 7"):
        fetch(dataclasses.replace(record_without_hash, size=7))
    assert leftovers(cache) == []


def test_wrong_bytes_are_an_error_and_not_kept(record, server, cache):
    server.payload = b"\xff" + PAYLOAD[1:]
    with pytest.raises(UserError, match=f"the catalogue says {SHA256}"):
        fetch(record)
    assert "weights.pth" not in leftovers(cache) and "weights.pth.part" not in leftovers(cache)


def test_an_empty_file_is_an_error(record_without_hash, server):
    server.payload = b""
    with pytest.raises(UserError, match="empty"):
        fetch(record_without_hash)


def test_404_is_an_error_that_says_where_to_look(record, server):
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


def test_a_redirect_to_a_web_page_is_an_error_and_nothing_is_kept(record_without_hash, server, cache):
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
    assert "http://127.0.0.1:9/weights.pth: no connection" in message and str(cache / "weights.pth") in message
    assert len(message.splitlines()) == 3


def test_a_server_that_falls_silent_is_given_up(record, server, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", (1.0, 0.05))
    monkeypatch.setattr(download, "RETRIES", 1)
    server.pause = 0.5
    begun = time.monotonic()
    with pytest.raises(UserError, match="no connection"):
        fetch(record)
    assert time.monotonic() - begun < 5


# --- what was fetched before


def test_a_corrupt_cached_file_is_an_error_that_says_what_to_delete(record, server):
    path = fetch(record)
    path.write_bytes(PAYLOAD[:-1] + b"\x00")
    with pytest.raises(UserError, match=f"rm '{path}'"):
        fetch(record)
    path.unlink()
    assert fetch(record).read_bytes() == PAYLOAD


def test_a_file_changed_behind_its_size_and_time_is_found_by_a_thorough_check(record):
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
    server.payload = PAYLOAD[::-1]
    with pytest.raises(UserError, match=f"it was {SHA256} when weights was first fetched"):
        fetch(record_without_hash)
    assert not path.exists()


def test_a_file_put_there_by_hand_is_used(record_without_hash, server, cache):
    cache.mkdir()
    (cache / "weights.pth").write_bytes(b"by hand")
    assert fetch(record_without_hash).read_bytes() == b"by hand"
    assert not server.requests


def test_weights_without_an_address_say_where_a_person_finds_them(record, cache):
    manual = dataclasses.replace(record, urls=[], note="In a folder.")
    with pytest.raises(UserError, match="by hand from https://example.org and put it at .*weights.pth. In a folder"):
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


def test_a_full_disk_leaves_a_part_that_the_next_run_goes_on_with(record, server, cache):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(UserError, match="make room"):
            fetch(record)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (cache / "weights.pth").exists()
    assert fetch(record).read_bytes() == PAYLOAD
    assert server.requests[-1]["Range"] == "bytes=50000-"


def test_offline_the_network_is_not_touched(record, server, monkeypatch):
    monkeypatch.setenv("VIRTEX_DET_OFFLINE", "1")
    with pytest.raises(UserError, match="VIRTEX_DET_OFFLINE"):
        fetch(record)
    assert not server.requests


def test_offline_a_cached_file_is_used(record, monkeypatch):
    path = fetch(record)
    monkeypatch.setenv("VIRTEX_DET_OFFLINE", "1")
    assert fetch(record) == path


def test_a_mirror_folder_is_asked_first_also_offline(record, server, tmp_path, monkeypatch):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "weights.pth").write_bytes(PAYLOAD)
    monkeypatch.setenv("VIRTEX_DET_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("VIRTEX_DET_OFFLINE", "1")
    assert fetch(record).read_bytes() == PAYLOAD
    assert not server.requests


def test_a_mirror_without_the_file_is_passed_over(record, tmp_path, monkeypatch):
    monkeypatch.setenv("VIRTEX_DET_MIRROR", str(tmp_path))
    assert fetch(record).read_bytes() == PAYLOAD


def test_a_mirror_with_another_file_is_passed_over(record, tmp_path, monkeypatch):
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
