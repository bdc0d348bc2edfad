"""Random seeds that belong to an example or to a step, not to a process."""

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
    """Seed torch (on the CPU), NumPy and ``random`` from a key within the block.

    Each of the three gets its own seed: all are Mersenne Twisters, and the same seed would give the
    same sequence. Outside of a loader's worker their states are restored after the block.

    Example:
        >>> with seeded(0, "photo"):
        ...     first = random.random()
        >>> with seeded(0, "photo"):
        ...     assert random.random() == first
    """
    for_torch, for_numpy, for_python = _seeds(*key)
    states = None
    if get_worker_info() is None:
        states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(for_torch)  # torch.manual_seed would also seed the GPUs
    np.random.seed(for_numpy)
    random.seed(for_python)
    try:
        yield
    finally:
        if states:
            torch.set_rng_state(states[0])
            np.random.set_state(states[1])
            random.setstate(states[2])


def seed_process(*key: int | str) -> None:
    """Seed torch (on CPU and GPUs), NumPy and ``random`` of this process from a key.

    Training calls it before each step with (seed, "step", iteration, rank). So a resumed run draws
    the same random numbers as an uninterrupted one, from any checkpoint, without generator states
    in it, whatever evaluation, batch norm statistics or a user's hook have drawn in between.

    Example:
        >>> seed_process(0, "step", 7, 0)
        >>> first = torch.rand(1)
        >>> seed_process(0, "step", 7, 0)
        >>> assert torch.equal(torch.rand(1), first)
    """
    for_torch, for_numpy, for_python = _seeds(*key)
    torch.manual_seed(for_torch)
    np.random.seed(for_numpy)
    random.seed(for_python)


def _seeds(*key: int | str) -> tuple[int, int, int]:
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=12).digest()
    return struct.unpack("<3I", digest)
