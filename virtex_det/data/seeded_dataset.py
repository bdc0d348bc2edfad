"""Training examples by their position in the endless stream, independent of who loads them."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch.utils.data as torchdata
from detectron2.utils import comm

from virtex_det.data.seeding import seeded
from virtex_det.data.skipped import LEFT_OUT, Skipped, check_run
from virtex_det.errors import BrokenExample

Mapper = Callable[[dict[str, Any]], dict[str, Any]]


class PositionSampler(torchdata.Sampler):
    """This process's (position, image index) pairs in the stream that all processes share.

    Process r of N has the positions r, r + N, ..., as in Detectron2's samplers. So the batches of N
    processes together are the batch of one process.
    """

    def __init__(self, sampler: torchdata.Sampler, start: int) -> None:
        """
        Args:
            sampler: one of Detectron2's samplers, which yields this process's image indices.
            start: number of indices to skip.
        """
        self.sampler = sampler
        self.start = start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        positions = itertools.count(comm.get_rank(), comm.get_world_size())
        return itertools.islice(zip(positions, self.sampler, strict=False), self.start, None)


class GroupedPositionSampler(torchdata.Sampler):
    """Batches of one orientation, grouped as by Detectron2's AspectRatioGroupedDataset.

    The dataset's sizes decide, before any image is read. So a resumed run has the same batch k
    without loading the batches before it.
    """

    def __init__(
        self,
        places: torchdata.Sampler,
        dicts: Sequence[dict[str, Any]],
        batch_size: int,
        start: int,
    ) -> None:
        """
        Args:
            places: this process's (position, image index) pairs, from the first on.
            dicts: dataset dicts; images without "width" and "height" count as upright.
            batch_size: images per batch of this process.
            start: number of batches to skip.
        """
        self.places = places
        self.dicts = dicts
        self.batch_size = batch_size
        self.start = start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return itertools.islice(self._batches(), self.start, None)

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        batches: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        is_wide = [entry.get("width", 0) > entry.get("height", 0) for entry in self.dicts]
        for position, index in self.places:
            batch = batches[is_wide[index]]
            batch.append((position, index))
            if len(batch) == self.batch_size:
                yield list(batch)
                batch.clear()


class SeededDataset(torchdata.Dataset):
    """Maps (position, index) to an example; (seed, position) is the seed of its augmentation.

    Example:
        >>> import torch
        >>> draw = lambda entry: {"draw": int(torch.randint(100, ()))}
        >>> one, other = (SeededDataset([{}], draw, seed=0) for _ in range(2))
        >>> one[5, 0] == other[5, 0]
        True
    """

    def __init__(self, dicts: Sequence[dict[str, Any]], mapper: Mapper, seed: int) -> None:
        """
        Args:
            dicts: dataset dicts.
            mapper: makes an example of a dict. If it ``skips_broken_images``, the next image of the
                dataset replaces one that cannot be read.
            seed: seed of all augmentation.
        """
        self.dicts = dicts
        self.mapper = mapper
        self.seed = seed

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        position, index = place
        broken: list[Skipped] = []
        while True:
            dataset_dict = self.dicts[(index + len(broken)) % len(self.dicts)]
            try:
                with seeded(self.seed, position):
                    return with_notes(self.mapper(dataset_dict), broken)
            except BrokenExample as error:
                if not skips_broken_images(self.mapper):
                    raise
                advice = str(error).partition("\n")[2]
                broken.append(Skipped(str(dataset_dict.get("file_name")), error.reason, advice))
                check_run(broken, error)


def skips_broken_images(mapper: Mapper) -> bool:
    """Return whether a mapper lets training skip broken images; Detectron2's mappers do not."""
    return getattr(mapper, "skips_broken_images", False)


def with_notes(example: dict[str, Any], left_out: list[Skipped]) -> dict[str, Any]:
    """Attach notes to an example, which ``SkipCountingLoader`` removes again."""
    return {**example, LEFT_OUT: list(left_out)} if left_out else example
