"""MODEL.WEIGHTS as an http address, or as one of Detectron2's names for one."""

import pytest

from tests.model_zoo.conftest import OTHER, PAYLOAD
from virtex_det.checkpoint.locating import local_path
from virtex_det.errors import UserError
from virtex_det.model_zoo.catalog import record_of


@pytest.mark.parametrize(
    "sent", [PAYLOAD[:50_000], b'{"error": "no such file"}', b"<html>log in</html>"]
)
def test_an_incomplete_file_is_not_kept_and_the_next_try_downloads_it(sent, server, cache):
    url, server.payload = f"{server.url}/weights.pth", sent
    with pytest.raises(UserError, match="was not downloaded") as caught:
        local_path(url)
    assert f"Download it by hand from {url}" in str(caught.value)
    server.payload = PAYLOAD
    path = local_path(url)
    assert path.parent == cache and path.read_bytes() == PAYLOAD
    assert local_path(url) == path and len(server.requests) == 2


def test_the_error_for_a_damaged_cached_file_says_what_to_delete(server):
    path = local_path(f"{server.url}/weights.pth")
    path.write_bytes(PAYLOAD[:-5])
    with pytest.raises(UserError, match=f"Delete it to download it again: rm '{path}'"):
        local_path(f"{server.url}/weights.pth")


def test_addresses_with_the_same_end_are_two_files(server):
    first = local_path(f"{server.url}/weights.pth?run=1")
    server.payload = OTHER
    second = local_path(f"{server.url}/weights.pth?run=2")
    assert (first.read_bytes(), second.read_bytes()) == (PAYLOAD, OTHER)


@pytest.mark.parametrize(
    "url",
    [
        "http://host/",
        "http://host/" + "a" * 500,
        "http://host/%2e%2e/..",
        "http://host",
        "HTTP://HOST/ä.pth?x=/../../etc",
    ],
)
def test_the_name_in_the_cache_is_valid_on_any_disk(url):
    name = record_of(url).file_name
    assert name.isascii() and "/" not in name and name[0] not in "-." and len(name) < 100


@pytest.mark.parametrize(
    "url", ["http://", "http://[bad", "https:///x.pth", "http://a b/c", "http://host/\n"]
)
def test_the_error_for_an_invalid_address_fits_a_screen(url):
    with pytest.raises(UserError, match="is not the address of a file"):
        local_path(url)


def test_the_error_for_an_address_offline_says_how_to_download_it_elsewhere(server, monkeypatch):
    monkeypatch.setenv("VIRTEX_DET_OFFLINE", "1")
    url = f"{server.url}/weights.pth"
    with pytest.raises(UserError, match="virtex-det zoo download") as caught:
        local_path(url)
    assert url in str(caught.value) and not server.requests


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("detectron2://ImageNetPretrained/x.pkl", "detectron2/ImageNetPretrained/x.pkl"),
        ("https://dl.fbaipublicfiles.com/detectron2/x.pkl", "detectron2/x.pkl"),
        ("catalog://ImageNetPretrained/MSRA/R-50", "detectron/ImageNetPretrained/MSRA/R-50.pkl"),
    ],
)
def test_a_whole_file_in_detectron2s_cache_is_used(path, kept, tmp_path, cache, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "detectron2"))
    monkeypatch.setenv("VIRTEX_DET_OFFLINE", "1")
    file = tmp_path / "detectron2" / kept
    file.parent.mkdir(parents=True)
    file.write_bytes(PAYLOAD[:50_000])
    with pytest.raises(UserError, match=f"{file}: the download"):
        local_path(path)
    file.write_bytes(PAYLOAD)
    assert local_path(path).parent == cache
