"""Randomness that belongs to an example, and not to the process that happens to load it."""

import hashlib
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import get_worker_info


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Let a key alone decide what the block draws from torch (on the CPU), NumPy and ``random``.

    Each of the three has a seed of its own: all are Mersenne Twisters, and one seed would give them one sequence.
    Outside of a loader's worker, where others draw too, their states are put back.

    Example:
        >>> with seeded(0, "photo"):
        ...     first = random.random()
        >>> with seeded(0, "photo"):
        ...     assert random.random() == first
    """
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=12).digest()
    for_torch, for_numpy, for_python = struct.unpack("<3I", digest)
    states = None
    if get_worker_info() is None:
        states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(for_torch)  # torch.manual_seed would seed the GPUs that train, too
    np.random.seed(for_numpy)
    random.seed(for_python)
    try:
        yield
    finally:
        if states:
            torch.set_rng_state(states[0])
            np.random.set_state(states[1])
            random.setstate(states[2])
