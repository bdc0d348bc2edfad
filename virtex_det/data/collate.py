"""Collation of small images: a worker sends each batch as one buffer."""

import io
import pickle
from collections.abc import Iterable, Iterator
from typing import Any

import torch

# Copying a larger image (bytes) costs more than sharing it.
LARGEST_PACKED_IMAGE = 2**20


class _Pickler(pickle.Pickler):
    """Pickle tensors by value; PyTorch's own reducer opens a file descriptor for each."""

    def reducer_override(self, obj: Any) -> Any:
        return (
            (torch.from_numpy, (obj.numpy(),)) if isinstance(obj, torch.Tensor) else NotImplemented
        )


def pack(batch: Any) -> Any:
    """Pack a batch of small images into one byte tensor: the collate function of a worker.

    PyTorch shares every tensor of a batch through its own file descriptor. With hundreds of small
    tensors this takes seven times as long as a copy, and exceeds the usual limit of 1024 open
    files. Batches with a large image are not packed.

    Args:
        batch: a list of examples, or one example; each a dict with "image".
    """
    examples = batch if isinstance(batch, list) else [batch]
    if any(example["image"].nbytes > LARGEST_PACKED_IMAGE for example in examples):
        return batch
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(batch)
    return torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)


class UnpackingLoader:
    """A loader's batches, unpacked in the training process."""

    def __init__(self, loader: Iterable[Any]) -> None:
        """Wrap a loader whose workers ``pack``."""
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            yield pickle.loads(batch.numpy().data) if isinstance(batch, torch.Tensor) else batch
