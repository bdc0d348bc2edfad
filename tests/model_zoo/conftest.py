"""A server on this machine that can misbehave, and a cache of its own for each test."""

import hashlib
import itertools
import json
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO

import pytest

from virtex_det.model_zoo import transfer

HEADER = (
    json.dumps({"a": {"dtype": "U8", "shape": [102_000], "data_offsets": [0, 102_000]}})
    .encode()
    .ljust(392)
)
NUMBERS = bytes(range(250)) * 408
PAYLOAD = (
    struct.pack("<Q", len(HEADER)) + HEADER + NUMBERS
)  # 102,400 bytes in the form of safetensors
OTHER = PAYLOAD[:400] + NUMBERS[::-1]


def answer(body: bytes = b"", status: str = "200 OK", **headers: str | int) -> bytes:
    """Return what a server sends; names of headers have _ for -."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin1") + body


class Server(ThreadingHTTPServer):
    """Serves ``payload`` at every path, and does what the flags say."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.payload = PAYLOAD
        self.requests: list[dict[str, str]] = []  # headers
        self.status = 200
        self.failing = 0  # this many requests get a 503 first
        self.cut_after = 0  # close the connection after so many bytes of each reply
        self.cuts = 10**6  # this many times
        self.ranges = True
        self.wrong_piece = False  # answer the first Range with another piece
        self.location = ""  # redirect to it
        self.excess = 0  # bytes that are promised and do not come
        self.pause = 0.0  # before each reply
        self.raw = b""  # send just this, and close the connection
        self.answers: list[
            bytes | Callable[[BinaryIO], None]
        ] = []  # one a request, the last again and again
        self.dripping = b""  # send just this, a byte at a time, without end
        self.drip = 0.02  # seconds between two of its bytes

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """Stay quiet about connections that tests cut."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(dict(self.headers))
        time.sleep(server.pause)
        if server.dripping:
            return self.reply_drop_by_drop()
        if server.answers:
            self.close_connection = True
            answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
            self.wfile.write(answer) if isinstance(answer, bytes) else answer(self.wfile)
            return None
        if server.raw:
            self.close_connection = True
            self.wfile.write(server.raw)
            return None
        if server.location and self.path not in ("/page", "/file"):
            return self.reply(302, b"", Location=server.location)
        if self.path == "/page":
            return self.reply(200, b"\n<!DOCTYPE html><title>File removed</title>")
        if server.failing:
            server.failing -= 1
            return self.reply(503, b"busy")
        if server.status != 200:
            return self.reply(server.status, b"<html>no</html>")
        return self.reply_payload()

    def reply_drop_by_drop(self) -> None:
        self.close_connection = True
        for byte in itertools.chain(self.server.dripping, itertools.repeat(97)):
            self.wfile.write(bytes([byte]))
            time.sleep(self.server.drip)

    def reply_payload(self) -> None:
        payload, tag = self.server.payload, f'"{hashlib.md5(self.server.payload).hexdigest()}"'
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if self.server.ranges and asked and self.headers.get("If-Range") == tag:
            begin = int(asked[1]) - 10 * self.server.wrong_piece
            if begin >= len(payload):
                return self.reply(416, b"", **{"Content-Range": f"bytes */{len(payload)}"})
            piece = f"bytes {begin}-{len(payload) - 1}/{len(payload)}"
            return self.reply(206, payload[begin:], ETag=tag, **{"Content-Range": piece})
        return self.reply(200, payload, ETag=tag)

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) + self.server.excess))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.server.cut_after and self.server.cuts:
            self.server.cuts -= 1
            body, self.close_connection = body[: self.server.cut_after], True
        self.close_connection = self.close_connection or bool(self.server.excess)
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    ).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache; no waiting, and neither mirror nor proxy of the machine's own."""
    for name in (
        "VIRTEX_DET_MIRROR",
        "VIRTEX_DET_OFFLINE",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VIRTEX_DET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(transfer, "BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr(transfer, "PIECE_BYTES", 10_000)
    return tmp_path / "cache"
