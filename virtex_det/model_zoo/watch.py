"""Work on the network that ends: given up when too little comes, or when it has taken too long."""

import threading
import time
from collections.abc import Callable

STALL_SECONDS = 120.0
STALL_BYTES = 64 << 10  # fewer in that time are a stall
MAX_SECONDS = 24 * 3600.0  # of one file


class Stalled(Exception):
    """The work was given up; the message says what it was measured by."""


class Watch:
    """Counts what comes; once the work is given up, what still comes is refused."""

    def __init__(self) -> None:
        self.came = 0
        self._is_over = False
        self._lock = threading.Lock()

    def count(self, number_of_bytes: int) -> None:
        """Count bytes before they are kept.

        Raises:
            Stalled: the work was given up meanwhile.
        """
        with self._lock:
            if self._is_over:
                raise Stalled("given up")
            self.came += number_of_bytes

    def end(self) -> None:
        """Give the work up."""
        with self._lock:
            self._is_over = True


def watched(work: Callable[[Watch], None]) -> None:
    """Do work in a thread of its own, which a server that drips or stalls cannot hold for ever.

    A time limit of a socket begins anew with each byte, so it does not end a server that sends one
    a minute.

    Args:
        work: tells the watch what comes.

    Raises:
        Stalled: fewer than ``STALL_BYTES`` came in ``STALL_SECONDS``, or ``MAX_SECONDS`` have
            passed.
        Exception: what the work raises.
    """
    watch, errors = Watch(), []

    def do() -> None:
        try:
            work(watch)
        except BaseException as error:  # for the thread that waits
            errors.append(error)

    thread = threading.Thread(target=do, daemon=True)  # one that hangs must not hold the process
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
            raise Stalled(f"not whole after {MAX_SECONDS / 3600:g} hours")
        if watch.came - before < STALL_BYTES:
            raise Stalled(f"fewer than {STALL_BYTES:,} bytes came in {STALL_SECONDS:g} seconds")
