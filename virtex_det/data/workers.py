"""How batches travel from worker processes: each as one buffer."""

import io
import pickle
from collections.abc import Iterable, Iterator
from typing import Any

import torch


class _Pickler(pickle.Pickler):
    """Pickles tensors by value; the one that PyTorch registers opens a file descriptor for each."""

    def reducer_override(self, obj: Any) -> Any:
        return (torch.from_numpy, (obj.numpy(),)) if isinstance(obj, torch.Tensor) else NotImplemented


def pack(batch: Any) -> torch.Tensor:
    """Put a batch, whatever it is made of, into one byte tensor: the collate function of a worker.

    PyTorch shares every tensor of a batch by its own file descriptor. With hundreds of small tensors this costs more
    than the copy, and goes past the open-file limit of 1024 that most machines have.
    """
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(batch)
    return torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)


class UnpackedBatches:
    """A loader's batches, unpacked in the process that trains."""

    def __init__(self, loader: Iterable[Any]) -> None:
        """Wrap a loader whose workers ``pack``."""
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        for packed in self.loader:
            yield pickle.loads(packed.numpy().data) if isinstance(packed, torch.Tensor) else packed
