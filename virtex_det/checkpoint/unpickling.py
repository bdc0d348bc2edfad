"""A stand-in for the pickle module that makes tensors, arrays and plain containers, and calls nothing else.

A pickle names the functions that rebuild its objects. Here a name outside a short list stands for `Inert`, which takes
whatever it is given and does nothing. So a file's own objects (an argparse Namespace, a config, a module) are skipped.
"""

import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import torch

_MODULE_PARTS = ("_parameters", "_buffers", "_modules")  # how a torch.nn.Module keeps what its state_dict names
_PLAIN_DTYPE = re.compile(r"[biufc]\d+")


class Inert:
    """Whatever a file asks for by a name that is not admitted; keeps what the file puts into it."""

    state: Any = None
    dump_patches = False  # torch.load asks this of modules in files of before PyTorch 1.6

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> "Inert":
        return Inert()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Forget it."""

    def extend(self, items: Any) -> None:
        """Forget them."""

    def add(self, item: Any) -> None:
        """Forget it."""


class _Dtype:
    """A NumPy dtype of numbers, without the structured and object ones that NumPy itself would rebuild."""

    def __init__(self, code: str, *flags: Any) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    def make(self) -> np.dtype | None:
        return np.dtype(self.order + self.code) if _PLAIN_DTYPE.fullmatch(self.code) else None


class _Array:
    """A NumPy array of numbers, whose bytes stay where the pickle has them; of anything else, nothing."""

    array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        self.fill(data, dtype, shape, "F" if is_fortran else "C")

    def fill(self, data: Any, dtype: _Dtype, shape: tuple, order: Any) -> None:
        if made := dtype.make():
            self.array = np.frombuffer(data, made).reshape(shape, order=order)


def _reconstruct(*arguments: Any) -> _Array:
    return _Array()


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple, order: str) -> _Array:
    made = _Array()
    made.fill(data, dtype, shape, order)
    return made


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1")  # how pickles of Python 2 and of protocol 2 hold bytes


_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
    ("_codecs", "encode"): _encode,
}
_REBUILDERS = {("torch._utils", f"_rebuild_{kind}") for kind in ("tensor", "tensor_v2", "parameter")}
_OF_NUMPY = {"_reconstruct": _reconstruct, "_frombuffer": _from_buffer, "ndarray": _Array, "dtype": _Dtype}


class Unpickler(pickle.Unpickler):
    """An unpickler that admits tensors and arrays by name; any other name stands for `Inert`."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for; nothing is imported but PyTorch's own rebuilding of tensors."""
        if (module, name) in _REBUILDERS:
            return super().find_class(module, name)
        if module.partition(".")[0] == "numpy":
            return _OF_NUMPY.get(name, Inert)
        return _ADMITTED.get((module, name), Inert)


def load(file: BinaryIO, **options: Any) -> Any:
    """Unpickle the next object of a file."""
    return Unpickler(file, **options).load()


def plain(value: Any) -> Any:
    """Return tensors in plain containers: arrays as tensors, a module as its named tensors, other objects as None."""
    if isinstance(value, Inert):
        return dict(_named_tensors(value)) or None
    if isinstance(value, _Array):
        return _tensor(value.array)
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value


def _named_tensors(part: Any, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    content = part.state if isinstance(part, Inert) else part
    for key, value in content.items() if isinstance(content, dict) else ():
        name = prefix if key in _MODULE_PARTS else f"{prefix}{key}."
        if isinstance(value, torch.Tensor):
            yield name[:-1], value.detach()
        else:
            yield from _named_tensors(value, name)


def _tensor(array: np.ndarray | None) -> torch.Tensor | None:
    if array is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of bytes that must not be written to, and are not
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
