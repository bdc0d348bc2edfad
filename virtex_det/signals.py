"""Ending when asked to: signals become an exception, at once or at the next place that can stop, and no child stays."""

import ctypes
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from virtex_det_commands import PROGRAM

# What a user, a shell, Slurm before it preempts, and a terminal that closes send.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_SAME = 1.0  # seconds within which a second signal repeats the first: a launcher passes on what a terminal sent to all
_PR_SET_PDEATHSIG = 1


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end.

    Attributes:
        number: of the signal.
        message: what becomes of the work, on one line; "" where nobody has said it yet.
    """

    def __init__(self, number: int, message: str = "") -> None:
        """Keep the signal, with the message."""
        super().__init__(f"interrupted by {signal.Signals(number).name}; {message or 'what was saved stays'}")
        self.number = number
        self.message = message

    @property
    def exit_code(self) -> int:
        """Return what a shell gives for a process that a signal ended."""
        return 128 + self.number


@contextmanager
def stop_at_once() -> Iterator[None]:
    """Let signals raise ``Stopped`` wherever this process is."""
    with handling(_raise):
        yield


class StopLater:
    """A context in which signals are kept until the work has come to a place where it can stop.

    Attributes:
        number: of the signal that came, 0 for none.
    """

    def __init__(self, notice: str) -> None:
        """Print ``notice`` when a signal comes."""
        self.number = 0
        self._notice = notice
        self._since = 0.0
        self._waits = True

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep the signals that come; a second Ctrl-C, a second or more after the first, ends at once."""
        with handling(self._note):
            yield

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal end the block, or what has come before it."""
        if self.number:
            raise Stopped(self.number)
        self._waits = False
        try:
            yield
        finally:
            self._waits = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_second = bool(self.number) and time.monotonic() - self._since > _SAME
        if not self.number:
            self.number, self._since = number, time.monotonic()
            os.write(2, f"\n{signal.Signals(number).name}: {self._notice}\n".encode())  # print cannot be entered twice
        if not self._waits or (is_second and number == signal.SIGINT):
            raise Stopped(number)


@contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have a handler called for the signals, but for those that the process was started to ignore, as by nohup.

    Only a main thread can; in others nothing changes.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def signals_held() -> Iterator[Callable[[], None]]:
    """Keep signals while a block works with threads or processes.

    One that raised within a lock of theirs would leave it locked, and the end would wait for it for ever.

    Yields:
        What the block calls between two pieces of work: it raises ``Stopped`` if a signal came. One that comes after
        the last call is handled when the block has ended.
    """
    came: list[int] = []

    def stop_if_asked() -> None:
        if came:
            raise Stopped(came[0])

    with handling(lambda number, frame: came.append(number)):
        yield stop_if_asked
    if came:
        signal.raise_signal(came[0])  # to whoever handles it outside


def end_with_parent(number: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Have this process get a signal when the one that started it ends in any way; on Linux alone.

    Args:
        number: of the signal.
        parent: number of the process that started this one, where it may have ended before the call.
    """
    parent = parent or os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it ended before the call
            os.kill(os.getpid(), number)


def serve_parent(parent: int, *_: object) -> None:
    """Prepare a process that works for its parent: the parent alone decides when it ends.

    What a terminal or Slurm sends to all processes of a job must not end a loader's worker while the parent still
    saves. After a SIGTERM, which a parent that is done sends too, it waits ten seconds.

    Args:
        parent: number of the process that it works for, which may have been killed before this call.
    """
    has_server = multiprocessing.get_start_method() == "forkserver"  # a process between the two, which ends with it
    end_with_parent(parent=None if has_server else parent)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(10))


def command(*more: str) -> str:
    """Return the command line of this process, with further words where they are not there yet."""
    script, *words = sys.argv
    is_script = not script.startswith(f"{PROGRAM} ")
    launcher = ["torchrun ..."] if "TORCHELASTIC_RUN_ID" in os.environ else ["python"] if is_script else []
    words = [word for word in more if word not in words] + words
    return " ".join([*launcher, shlex.quote(script) if is_script else script, shlex.join(words)])


def _raise(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)
