"""The stream of training examples from tar shards, divided among workers and resumable."""

import random
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import Any, NamedTuple

import torch.utils.data as torchdata

from virtex_det.data.datasets.shards import FORM, HOW_TO_MAKE, NO_IMAGE, NOT_WHOLE, Shard, encoded
from virtex_det.data.datasets.subsets import is_in_fraction, take_captions
from virtex_det.data.seeded_dataset import Mapper, with_notes
from virtex_det.data.seeding import seeded
from virtex_det.data.skipped import Skipped, check_run
from virtex_det.errors import UserError
from virtex_det.image_files import BrokenImage


class Choice(NamedTuple):
    """The part of the shards to train on, as in the DATASETS keys of the same names."""

    fraction: float = 1.0
    captions_per_image: int = 0
    subset_seed: int = 0


EVERYTHING = Choice()


class _Place(NamedTuple):
    """An example's place in the stream; with the seed it determines the augmentation."""

    epoch: int
    shard: int
    number: int


class ShardExamples(torchdata.IterableDataset):
    """The endless stream of one process's examples, from each of its workers in turn.

    In every epoch the shards are dealt out again to all workers of all processes; each worker reads
    its shards one by one. A sample without a readable image and a caption gives its place to the
    next, but still counts. So counting samples is enough to resume exactly where a run stopped.
    """

    def __init__(
        self,
        files: Sequence[str],
        mapper: Mapper,
        *,
        seed: int,
        batch_size: int,
        start_iter: int = 0,
        shuffle_size: int = 1000,
        choice: Choice = EVERYTHING,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """
        Args:
            files: paths of the shards.
            mapper: makes an example of a dataset dict with captions.
            seed: seed of the order and of all augmentation.
            batch_size: examples per batch of this process.
            start_iter: first batch of this process.
            shuffle_size: samples of a shard among which the next one is drawn.
            choice: the part of the shards to use.
            rank: rank of this process.
            processes: number of processes.
        """
        self.files = files
        self.mapper = mapper
        self.seed = seed
        self.batch_size = batch_size
        self.start_iter = start_iter
        self.shuffle_size = shuffle_size
        self.choice = choice
        self.rank = rank
        self.processes = processes
        self._counts: dict[int, int] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = torchdata.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        # Batches come from the workers in turn, and a new loader asks worker 0 first: it takes the
        # place of the worker whose turn it was.
        turn = (self.start_iter + worker) % workers
        batches_done = (self.start_iter - turn + workers - 1) // workers
        return self._examples(
            self.rank * workers + turn, self.processes * workers, batches_done * self.batch_size
        )

    def _examples(self, reader: int, readers: int, skip: int) -> Iterator[dict[str, Any]]:
        waiting: list[_Place] = []
        broken: list[Skipped] = []
        notes: list[Skipped] = []
        for place, sample in self._samples(reader, readers, skip, notes):
            waiting.append(place)
            try:
                examples = [self._map(place, sample) for place in waiting]
            except BrokenImage as error:
                broken.append(Skipped(sample["file_name"], error.reason))
                check_run(broken, error, f"{HOW_TO_MAKE} If it is made like this, check the disk.")
                continue
            yield with_notes(examples[0], notes + broken)
            yield from examples[1:]
            waiting, broken = [], []
            notes.clear()

    def _map(self, place: _Place, sample: dict[str, Any]) -> dict[str, Any]:
        if fault := sample.get("fault"):
            raise BrokenImage(f"{sample['file_name']}: {fault}", fault)
        for part, reason in (("encoded_image", NO_IMAGE), ("captions", "sample without caption")):
            if not sample.get(part):
                raise BrokenImage(f"{sample['file_name']}: {reason}", reason)
        with seeded(self.seed, *place):
            return self.mapper(sample)

    def _samples(
        self, reader: int, readers: int, skip: int, notes: list[Skipped]
    ) -> Iterator[tuple[_Place, dict[str, Any]]]:
        for epoch in count():
            found = 0
            for shard in _shuffled_range(len(self.files), f"{self.seed}/{epoch}")[reader::readers]:
                size = self._count(shard) if skip else 0
                found += size
                if skip and size <= skip:
                    skip -= size
                    continue
                for number, sample in islice(
                    enumerate(self._read(epoch, shard, notes)), skip, None
                ):
                    found += 1
                    yield _Place(epoch, shard, number), sample
                skip = 0
            if not found:
                raise UserError(self._nothing_found())

    def _read(self, epoch: int, shard: int, notes: list[Skipped]) -> Iterator[dict[str, Any]]:
        """Read a shard's samples, shuffled by epoch, and note the shard's own faults."""
        import webdataset

        tar = Shard(self.files[shard])
        samples = self._chosen(tar, notes)
        shuffle = webdataset.shuffle(
            self.shuffle_size, initial=self.shuffle_size, seed=f"{self.seed}/{epoch}/{shard}"
        )
        yield from shuffle(samples)

    def _chosen(self, tar: Shard, notes: list[Skipped]) -> Iterator[dict[str, Any]]:
        read = 0
        for sample in tar.samples(encoded):
            read += 1
            if self._is_chosen(sample["image_id"]):
                yield from take_captions(
                    [sample], self.choice.captions_per_image, self.choice.subset_seed
                )
        if not tar.is_whole:
            notes.append(Skipped(tar.path, f"shard {NOT_WHOLE}"))
        elif tar.declared() not in (None, read):
            notes.append(
                Skipped(
                    str(tar.stats_file), "has another number of samples than its shard: delete it"
                )
            )

    def _is_chosen(self, key: str) -> bool:
        fraction = self.choice.fraction
        return fraction == 1 or is_in_fraction(key, fraction, self.choice.subset_seed)

    def _count(self, shard: int) -> int:
        if shard not in self._counts:
            keep = None if self.choice.fraction == 1 else self._is_chosen
            self._counts[shard] = Shard(self.files[shard]).count(keep)
        return self._counts[shard]

    def _nothing_found(self) -> str:
        return (
            f"no shard under DATASETS.TRAIN has a sample to train on ({len(self.files)} shards, "
            f"such as {self.files[0]}).\n"
            f"{FORM} Or is DATASETS.TRAIN_FRACTION so small that no sample remains?"
        )


def _shuffled_range(length: int, seed: str) -> list[int]:
    order = list(range(length))
    random.Random(seed).shuffle(order)
    return order
