"""The processes of a run watch each other: a stopped or lost one is named and ends the run."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from detectron2.utils import comm

logger = logging.getLogger(__name__)

_WARN = 60.0  # seconds of silence after which a process is named


class Peer(NamedTuple):
    """Another process of the run."""

    rank: int
    number: int  # of the process, on its machine
    machine: str

    def __str__(self) -> str:
        return f"process {self.rank} (number {self.number} on {self.machine})"


@contextmanager
def watching_each_other(minutes: float) -> Iterator[None]:
    """Show the other processes by a thread that this one lives; a collective call.

    The end of a block without an error is collective, too. PyTorch waits half an hour for a stopped
    process, and does not say which one it is. Within another such block nothing is started: a
    command watches all its work, Trainer only if no command does.

    Args:
        minutes: of silence after which all others end, with one message; 0 waits as PyTorch does.
    """
    watched = any(
        isinstance(thread, _Watchdog) and not thread.over.is_set()
        for thread in threading.enumerate()
    )
    if comm.get_world_size() == 1 or minutes <= 0 or watched:
        yield
        return
    watchdog = _Watchdog(60 * minutes)
    watchdog.start()
    try:
        yield
        comm.synchronize()  # a process that ended well must not seem lost
    finally:
        watchdog.over.set()


class _Watchdog(threading.Thread):
    """Sends every other process a datagram now and then, and checks that each of them sends some.

    Only a process that was heard before can count as lost: a network may block all datagrams.
    """

    def __init__(self, limit: float) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.limit, self.period = limit, min(5.0, limit / 10)
        self.over = threading.Event()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("", 0))
        self.socket.settimeout(self.period)
        own = Peer(comm.get_rank(), os.getpid(), socket.gethostname())
        everyone = comm.all_gather((own, _address(own.machine), self.socket.getsockname()[1]))
        self.own = own
        self.addresses = {
            peer: ("127.0.0.1" if peer.machine == own.machine else address, port)
            for peer, address, port in everyone
            if peer != own
        }

    def run(self) -> None:
        heard: dict[int, float] = {}
        named: set[Peer] = set()
        while not self.over.is_set():
            began = time.monotonic()
            for address in self.addresses.values():
                with contextlib.suppress(OSError):
                    self.socket.sendto(str(self.own.rank).encode(), address)
            self._listen(heard)
            if time.monotonic() - began > 4 * self.period + 1:  # this process itself was stopped
                heard = dict.fromkeys(heard, time.monotonic())
            for peer in self.addresses:
                self._judge(peer, time.monotonic() - heard.get(peer.rank, time.monotonic()), named)
        self.socket.close()

    def _listen(self, heard: dict[int, float]) -> None:
        """Receive datagrams for a period, and note their senders."""
        end = time.monotonic() + self.period
        while time.monotonic() < end:
            with contextlib.suppress(OSError, ValueError):
                heard[int(self.socket.recv(20))] = time.monotonic()

    def _judge(self, peer: Peer, silence: float, named: set[Peer]) -> None:
        if silence < min(_WARN, self.limit / 2):
            named.discard(peer)
        elif silence > self.limit:
            self._give_up(peer, silence)
        elif peer not in named:
            named.add(peer)
            logger.warning("%s has been silent for %d s; all others wait for it", peer, silence)

    def _give_up(self, peer: Peer, silence: float) -> None:
        print(
            f"\nerror: {peer} was silent for {silence:.0f} s: it is stopped, or its machine is "
            "lost.\nThe run ends. Go on with --resume. SOLVER.PROCESS_TIMEOUT sets how long the "
            "others wait.",
            file=sys.stderr,
            flush=True,
        )
        if peer.machine == self.own.machine:
            # The launcher would wait for ever for the end of a stopped process.
            with contextlib.suppress(ProcessLookupError):
                os.kill(peer.number, signal.SIGKILL)
        os._exit(1)  # the main thread waits in a collective call


def _address(machine: str) -> str:
    try:
        return socket.gethostbyname(machine)
    except OSError:
        return "127.0.0.1"
