import time

import pytest

from tests.model_zoo.conftest import PAYLOAD
from virtex_det.checkpoint.locating import local_path
from virtex_det.errors import UserError
from virtex_det.model_zoo import watch

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n"


@pytest.mark.parametrize(
    "sent", [b"HTTP/1.1 200 OK\r\nX: ", HEAD, HEAD + b"\r\n", HEAD + b"\r\n" + PAYLOAD[:600]]
)
def test_the_download_from_a_slow_server_is_stopped(sent, server, monkeypatch):
    monkeypatch.setattr(watch, "STALL_SECONDS", 0.3)
    server.dripping, server.drip = sent, 0.001
    begun = time.monotonic()
    with pytest.raises(UserError, match="fewer than 65,536 bytes came in 0.3 seconds") as caught:
        local_path(f"{server.url}/weights.pth")
    assert time.monotonic() - begun < 300
    assert len(str(caught.value).splitlines()) == 3


def test_a_download_that_takes_too_long_is_stopped(server, monkeypatch):
    monkeypatch.setattr(watch, "MAX_SECONDS", 0.3)
    server.dripping, server.drip = HEAD + b"\r\n", 0.001
    with pytest.raises(UserError, match="incomplete after"):
        local_path(f"{server.url}/weights.pth")


def test_bytes_after_the_stop_are_not_kept():
    late = watch.Watch()
    late.end()
    with pytest.raises(watch.Stalled):
        late.count(1)
