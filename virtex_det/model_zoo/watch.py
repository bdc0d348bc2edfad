"""Time limits for downloads: they are stopped when too slow or too long."""

import threading
import time
from collections.abc import Callable

STALL_SECONDS = 120.0
STALL_BYTES = 64 << 10  # fewer bytes in that time are a stall
MAX_SECONDS = 24 * 3600.0  # of one file


class Stalled(Exception):
    """The download was stopped; the message names the limit."""


class Watch:
    """Counts downloaded bytes, and refuses more once the download is stopped."""

    def __init__(self) -> None:
        self.came = 0
        self._is_over = False
        self._lock = threading.Lock()

    def count(self, number_of_bytes: int) -> None:
        """Count bytes before they are kept.

        Raises:
            Stalled: the download was stopped meanwhile.
        """
        with self._lock:
            if self._is_over:
                raise Stalled("stopped")
            self.came += number_of_bytes

    def end(self) -> None:
        """Stop the download."""
        with self._lock:
            self._is_over = True


def watched(work: Callable[[Watch], None]) -> None:
    """Run a download in a thread, and stop it if the server is too slow.

    A socket's timeout starts again with each byte, so it does not stop a server that sends one byte
    a minute.

    Args:
        work: the download; it counts its bytes on the watch.

    Raises:
        Stalled: fewer than ``STALL_BYTES`` came in ``STALL_SECONDS``, or ``MAX_SECONDS`` have
            passed.
        Exception: any error of the work.
    """
    watch, errors = Watch(), []

    def do() -> None:
        try:
            work(watch)
        except BaseException as error:  # raised by the waiting thread
            errors.append(error)

    thread = threading.Thread(target=do, daemon=True)  # a hanging thread must not block the exit
    thread.start()
    try:
        _wait(thread, watch)
    finally:
        watch.end()
    if errors:
        raise errors[0]


def _wait(thread: threading.Thread, watch: Watch) -> None:
    deadline = time.monotonic() + MAX_SECONDS
    while True:
        before = watch.came
        thread.join(min(STALL_SECONDS, max(deadline - time.monotonic(), 0)))
        if not thread.is_alive():
            return
        if time.monotonic() >= deadline:
            raise Stalled(f"incomplete after {MAX_SECONDS / 3600:g} hours")
        if watch.came - before < STALL_BYTES:
            raise Stalled(f"fewer than {STALL_BYTES:,} bytes came in {STALL_SECONDS:g} seconds")
