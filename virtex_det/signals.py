"""Signals as exceptions, at once or at the next place that can stop, without orphaned children.

Children that are not Python's are started by this file alone, so it imports the standard library.
"""

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

# Signals of a user, a shell, Slurm before preemption, and a closing terminal.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
# seconds within which a second signal is a repeat: a launcher forwards a terminal's signal
_SAME = 1.0
_PR_SET_PDEATHSIG = 1


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end.

    Attributes:
        number: number of the signal.
        message: what happens to the work, on one line; "" if not set yet.
    """

    def __init__(self, number: int, message: str = "") -> None:
        """Keep the signal, with the message."""
        super().__init__(
            f"interrupted by {signal.Signals(number).name}; {message or 'what was saved stays'}"
        )
        self.number = number
        self.message = message

    @property
    def exit_code(self) -> int:
        """The shell's exit code for a process ended by this signal."""
        return 128 + self.number


@contextmanager
def stop_at_once() -> Iterator[None]:
    """Raise ``Stopped`` in the block as soon as a signal comes."""
    with handling(_raise):
        yield


class StopLater:
    """Holds signals until the work reaches a place where it can stop.

    Attributes:
        number: number of the signal that came, 0 for none.
    """

    def __init__(self, notice: str) -> None:
        """Print ``notice`` when a signal comes."""
        self.number = 0
        self._notice = notice
        self._since = 0.0
        self._waits = True

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hold signals in the block; a second Ctrl-C, at least a second later, ends at once."""
        with handling(self._note):
            yield

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise ``Stopped`` for a signal in the block, or for one that came before it."""
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
            # print cannot be entered twice
            os.write(2, f"\n{signal.Signals(number).name}: {self._notice}\n".encode())
        if not self._waits or (is_second and number == signal.SIGINT):
            raise Stopped(number)


@contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Set a handler for the signals, except those that are ignored from the start, as by nohup.

    Only the main thread can set handlers; in other threads nothing changes.
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
    """Hold signals while a block works with threads or processes.

    An exception within one of their locks would leave it locked, and the end would wait for ever.

    Yields:
        A function to call between two pieces of work, which raises ``Stopped`` if a signal came. A
        signal after the last call is handled after the block.
    """
    came: list[int] = []

    def stop_if_asked() -> None:
        if came:
            raise Stopped(came[0])

    with handling(lambda number, frame: came.append(number)):
        yield stop_if_asked
    if came:
        signal.raise_signal(came[0])  # for the outer handler


def end_with_parent(number: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Send this process a signal when its parent ends in any way (Linux only).

    Args:
        number: number of the signal.
        parent: process id of the parent, which may have ended before the call.
    """
    parent = parent or os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # the parent ended before the call
            os.kill(os.getpid(), number)


def serve_parent(parent: int, *_: object) -> None:
    """Prepare a worker process, so that only its parent decides when it ends.

    Signals to all processes of a job, from a terminal or Slurm, must not end a loader's worker
    while the parent still saves. After a SIGTERM, which a finished parent sends too, it ends in ten
    seconds.

    Args:
        parent: process id of the parent, which may have been killed before this call.
    """
    # a process between the two, which ends with the parent
    has_server = multiprocessing.get_start_method() == "forkserver"
    end_with_parent(parent=None if has_server else parent)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda number, frame: os._exit(0))
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(10))


def command(*more: str) -> str:
    """Return the command line of this process, with additional words that it does not have yet."""
    from virtex_det_commands import PROGRAM

    script, *words = sys.argv
    words = [word for word in more if word not in words] + words
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    if not script.startswith(f"{PROGRAM} "):
        start = f"{'torchrun ...' if under_torchrun else 'python'} {shlex.quote(script)}"
    elif under_torchrun:  # it starts Python files and modules only
        start = f"torchrun ... -m virtex_det.cli {script.removeprefix(PROGRAM).strip()}"
    else:
        start = script
    return f"{start} {shlex.join(words)}"


def _raise(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)
