"""Process settings that make CPU runs faster and leave every result as it is."""

import contextlib
import ctypes
import logging
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names and numbers of mallopt(3)
KEEP_BYTES = 2**30


def tune_process() -> None:
    """Keep freed memory in the process instead of handing it back to the system at every step.

    A training step frees and allocates the same large activations again and again; by default glibc maps and unmaps
    each of them, and every page is zeroed anew. Does nothing where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        kept = libc.mallopt(M_MMAP_THRESHOLD, KEEP_BYTES) and libc.mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
        logging.getLogger(__name__).debug(f"mallopt accepted: {bool(kept)}")
