"""Random integers that are the same on every machine and under every NumPy."""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


class Rng:
    """Integers drawn from the raw words of one PCG64 stream.

    NumPy guarantees seeding and raw words for ever (NEP 19), but may change the methods of
    ``Generator``. Pixels must never change, so they are made from the raw words.

    Args:
        seed: non-negative seed of the whole dataset.
        stream: numbers that name this stream; different streams of a seed are independent.

    Example:
        >>> Rng(0, (1, 2)).below(10) == Rng(0, (1, 2)).below(10)
        True
    """

    def __init__(self, seed: int, stream: tuple[int, ...]) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=stream))

    def below(self, stop: int) -> int:
        """Return an integer of [0, stop)."""
        return (int(self._bits.random_raw()) * stop) >> 64

    def between(self, low: int, high: int) -> int:
        """Return an integer of [low, high]."""
        return low + self.below(high - low + 1)

    def pick(self, items: Sequence[Item]) -> Item:
        """Return one of the items, all equally likely."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """Return the items in random order (Fisher-Yates)."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order

    def octets(self, *shape: int) -> np.ndarray:
        """Return a uint8 array of that shape, uniform on [0, 255]."""
        count = math.prod(shape)
        words = self._bits.random_raw((count + 7) // 8)
        return words.astype("<u8").view(np.uint8)[:count].reshape(shape)
