"""Process settings that make CPU runs faster without changing results."""

import contextlib
import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # names and numbers of mallopt(3)


def tune_process() -> bool:
    """Keep freed memory in the process instead of returning it to the system at every step.

    Every training step allocates and frees the same large activations. By default glibc maps and
    unmaps each of them, and the kernel zeroes every page anew. The process keeps the largest amount
    of memory that it once needed.

    Returns:
        Whether the C library accepted the settings; only glibc does.
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        never_map, never_trim = libc.mallopt(M_MMAP_MAX, 0), libc.mallopt(M_TRIM_THRESHOLD, -1)
        return bool(never_map and never_trim)
    return False
