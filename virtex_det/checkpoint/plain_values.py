"""Converting unpickled objects to tensors in plain containers: a tree of bounded size."""

from collections.abc import Iterator
from typing import Any

import torch

from virtex_det.checkpoint.pickle_limits import Refused
from virtex_det.checkpoint.unpickling import Inert, SavedArray, SavedTensor

MAX_DEPTH = 100
MAX_VALUES = 3_000_000  # a shared value counts each time it occurs
# Bytes of all tensors without sharing: at most this multiple of the file's bytes plus SPARE_BYTES.
MAX_WRITTEN_OUT = 8
SPARE_BYTES = 64 << 20
# Attributes of a torch.nn.Module that hold what its state_dict names.
_MODULE_PARTS = ("_parameters", "_buffers", "_modules")
_MAX_NAME = 1000
_MAX_NAMES = 200_000
_PLAIN_TYPES = (str, bytes, bytearray, bool, int, float, complex, type(None))


def plain(value: Any, file_bytes: int) -> Any:
    """Return tensors in plain containers.

    Arrays become tensors, a module becomes its named tensors, an object that is like a dict becomes
    a dict, and other objects become None.

    Args:
        value: the result of ``unpickling.Unpickler``.
        file_bytes: the size of the file.

    Raises:
        Refused: the value exceeds the limits of this module (depth, values, bytes), or contains
            itself.
    """
    return _Plain(file_bytes).of(value, 0)[0]


class _Plain:
    """Converts each object once, and remembers its size including its content."""

    def __init__(self, file_bytes: int) -> None:
        self.most_bytes = MAX_WRITTEN_OUT * file_bytes + SPARE_BYTES
        self.bytes = 0
        self.names = 0
        # by identity: result, number of values in it, its depth
        self.made: dict[int, tuple[Any, int, int]] = {}
        self.open: set[int] = set()

    def of(self, value: Any, depth: int) -> tuple[Any, int, int]:
        """Return a converted value, the number of values in it, and its depth."""
        if isinstance(value, _PLAIN_TYPES):
            return value, 1, 0
        if id(value) in self.open:
            raise Refused("holds a list or dict that contains itself.")
        if id(value) not in self.made:
            self._check_depth(depth)
            self.open.add(id(value))
            self.made[id(value)] = self._make(value, depth)
            self.open.discard(id(value))
        made = self.made[id(value)]
        self._check_depth(depth + made[2])
        return made

    def _make(self, value: Any, depth: int) -> tuple[Any, int, int]:
        if isinstance(value, SavedTensor | SavedArray):
            return self._tensor(value), 1, 0
        if isinstance(value, Inert) and value.entries:
            value = value.entries
        if isinstance(value, Inert):
            named = {
                name: self.of(tensor, depth)[0]
                for name, tensor in self._named_tensors(value, "", (id(value),))
            }
            return named or None, 1 + len(named), 1
        if isinstance(value, dict):
            parts = [self.of(item, depth + 1) for item in value.values()]
            return dict(zip(value, (part[0] for part in parts), strict=True)), *self._extent(parts)
        if isinstance(value, list | tuple | set | frozenset):
            parts = [self.of(item, depth + 1) for item in value]
            kind = tuple if isinstance(value, tuple) else type(value)
            return kind(part[0] for part in parts), *self._extent(parts)
        return None, 1, 0

    def _extent(self, parts: list[tuple[Any, int, int]]) -> tuple[int, int]:
        values = 1 + sum(part[1] for part in parts)
        if values > MAX_VALUES:
            raise Refused(
                f"holds more than {MAX_VALUES:,} values, counting repeated ones each time."
            )
        return values, 1 + max((part[2] for part in parts), default=0)

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Refused(f"holds lists or dicts nested more than {MAX_DEPTH} deep.")

    def _tensor(self, saved: SavedTensor | SavedArray) -> torch.Tensor | None:
        self.bytes += saved.bytes
        if self.bytes > self.most_bytes:
            raise Refused(
                f"holds tensors that take more than {self.most_bytes:,} bytes, over "
                f"{MAX_WRITTEN_OUT} times the file: they repeat numbers. Save them with "
                ".contiguous()."
            )
        return saved.make()

    def _named_tensors(
        self, part: Any, prefix: str, path: tuple[int, ...]
    ) -> Iterator[tuple[str, Any]]:
        """Yield the tensors of a pickled module by name, without references to its parents."""
        content = part.state if isinstance(part, Inert) else part
        for key, value in content.items() if isinstance(content, dict) else ():
            name = prefix if key in _MODULE_PARTS else f"{prefix}{key}."
            self.names += 1
            if self.names > _MAX_NAMES or len(name) > _MAX_NAME or len(path) > MAX_DEPTH:
                raise Refused(
                    f"holds an object of more than {_MAX_NAMES:,} parts, or one nested too deeply."
                )
            if isinstance(value, SavedTensor):
                yield name[:-1], value
            elif id(value) not in path:
                yield from self._named_tensors(value, name, (*path, id(value)))
