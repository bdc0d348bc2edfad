"""Calls in a forked process with limited time and memory, which may hang or need all memory."""

import os
import resource
import signal
import sys
from collections.abc import Callable

from virtex_det.errors import UserError


def message_of(call: Callable[[], object], *, seconds: int = 15, spare_bytes: int = 1 << 30) -> str:
    """Return the message of the UserError that a call raises.

    Otherwise the text begins with ACCEPTED, TRACEBACK or KILLED.

    Args:
        call: the call.
        seconds: processor time after which the process is killed; a waiting process is killed
            after 20 times as long.
        spare_bytes: memory that the call may allocate.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _answer(call, writing, seconds, spare_bytes)
    os.close(writing)
    with os.fdopen(reading, errors="surrogatepass") as file:
        answer = file.read()
    status = os.waitpid(child, 0)[1]
    return answer if status == 0 else f"KILLED by signal {status & 127}: {answer}"


def _answer(call: Callable[[], object], writing: int, seconds: int, spare_bytes: int) -> None:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        has = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + spare_bytes, has + spare_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for sent in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(sent, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(20 * seconds)
    try:
        call()
        answer = "ACCEPTED"
    except UserError as error:
        answer = str(error)
    except BaseException as error:
        answer = f"TRACEBACK {type(error).__name__} {error}"
    os.write(writing, answer[:60_000].encode(errors="surrogatepass"))
    sys.stderr.flush()
    os._exit(0)
