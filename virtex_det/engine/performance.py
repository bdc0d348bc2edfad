"""Process settings that make CPU runs faster without changing results."""

import contextlib
import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # names and numbers of mallopt(3)


def tune_process() -> bool:
    """Keep freed memory in the process instead of returning it to the system at every step.

    A training step frees and allocates the same large activations again and again; by default glibc maps and unmaps
    each of them, and every page is zeroed anew. Costs some memory, as what was once needed is held on to.

    Returns:
        Whether the C library took the settings; one other than glibc does not.
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        never_map, never_trim = libc.mallopt(M_MMAP_MAX, 0), libc.mallopt(M_TRIM_THRESHOLD, -1)
        return bool(never_map and never_trim)
    return False
