"""An unpickler that makes tensors, arrays and plain containers, and calls nothing else.

A pickle names the functions that rebuild its objects. Here any name outside a short list is
replaced by `Inert`, which accepts all arguments and does nothing, so other objects (an argparse
Namespace, a config, a module) are skipped. Tensors and arrays are first descriptions; the tensors
are made once the whole file is read.
"""

import math
import pickle
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

import numpy as np
import torch

from virtex_det.checkpoint.pickle_limits import Refused, check_pickle, length_of

_PLAIN_DTYPE = re.compile(r"[biufc]\d+")
_NOT_IN_TORCH = re.compile(r"f1[26]|c2\d|c32")  # NumPy's long doubles
_MAX_DIMENSIONS = 64  # as PyTorch and NumPy allow
_PLAIN_KEY = (str, bytes, int, float, bool, type(None))
_BY_STORAGE = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}


class Inert:
    """A stand-in for an object whose name is not allowed; keeps its state and entries."""

    state: Any = None
    entries: dict[Any, Any] | None = None  # of an object that was a mapping

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> "Inert":
        return Inert()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        if type(key) in _PLAIN_KEY:
            self.entries = self.entries or {}
            self.entries[key] = value

    def append(self, item: Any) -> None:
        """Ignore the item."""

    def extend(self, items: Any) -> None:
        """Ignore the items."""

    def add(self, item: Any) -> None:
        """Ignore the item."""


class Storage:
    """The numbers that tensors share; their bytes are set when they are found in the file."""

    def __init__(self, dtype: torch.dtype, count: int) -> None:
        self.dtype = dtype
        self.count = count
        self.bytes: torch.Tensor | None = None
        self._views: dict[torch.dtype, torch.Tensor] = {}

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self.count * self.dtype.itemsize

    def numbers(self, dtype: torch.dtype) -> torch.Tensor:
        """Return all numbers. Shape: (count,)."""
        if self.bytes is None:
            raise ValueError("the numbers of a tensor are missing")
        if dtype not in self._views:
            whole = self.bytes[: len(self.bytes) // dtype.itemsize * dtype.itemsize]
            is_aligned = (
                whole.data_ptr() % dtype.itemsize == 0
                and whole.storage_offset() % dtype.itemsize == 0
            )
            self._views[dtype] = (whole if is_aligned else whole.clone()).view(dtype)
        return self._views[dtype]


class SavedTensor:
    """A tensor as a file describes it: part of a storage, in strides."""

    def __init__(
        self, storage: Storage, dtype: torch.dtype | None, offset: int, size: tuple, stride: tuple
    ) -> None:
        if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
            raise ValueError("a tensor without numbers")
        if (
            len(size) != len(stride)
            or len(size) > _MAX_DIMENSIONS
            or not all(map(_is_place, (offset, *size, *stride)))
        ):
            raise ValueError("a tensor of impossible size, strides or place in its storage")
        self.storage, self.dtype = storage, dtype
        self.offset, self.size, self.stride = offset, tuple(size), tuple(stride)

    def __setstate__(self, state: Any) -> None:
        pass

    @property
    def bytes(self) -> int:
        """The number of bytes of the tensor, without sharing."""
        return math.prod(self.size) * self.dtype.itemsize

    def make(self) -> torch.Tensor:
        """Return the tensor, a view of its storage."""
        numbers = self.storage.numbers(self.dtype)
        last = self.offset + sum(
            (n - 1) * step for n, step in zip(self.size, self.stride, strict=True)
        )
        if 0 not in self.size and last >= len(numbers):
            raise ValueError(
                f"a tensor of size {self.size} lies beyond its {len(numbers):,} numbers"
            )
        if 0 in self.size:
            return numbers.new_empty(self.size)
        return numbers.as_strided(self.size, self.stride, numbers.storage_offset() + self.offset)


def _is_place(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


class SavedArray:
    """A NumPy array of numbers as a pickle describes it; arrays of anything else become None."""

    content: bytes | str = b""  # text in pickles of Python 2
    dtype: np.dtype | None = None
    shape: tuple = ()
    order: Any = "C"

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        self.fill(data, dtype, shape, "F" if is_fortran else "C")

    def fill(self, data: Any, dtype: "_Dtype", shape: tuple, order: Any) -> None:
        """Set the description of the array."""
        self.dtype = dtype.make()
        if self.dtype is not None and not isinstance(data, bytes | bytearray | str):
            raise ValueError("an array without numbers")
        self.content, self.shape, self.order = data, shape, order

    @property
    def bytes(self) -> int:
        """The number of bytes of the array."""
        return 0 if self.dtype is None else len(self.content)

    def make(self) -> torch.Tensor | None:
        """Return the array as a tensor; None if it does not hold numbers."""
        if self.dtype is None:
            return None
        content = self.content.encode("latin1") if isinstance(self.content, str) else self.content
        array = np.frombuffer(content, self.dtype).reshape(self.shape, order=self.order)
        with warnings.catch_warnings():
            # PyTorch warns that the bytes are read-only; nothing writes to them.
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(array.astype(self.dtype.newbyteorder("="), copy=False))


class _Dtype:
    """A NumPy dtype of numbers; structured and object dtypes become None."""

    def __init__(self, code: str, *flags: Any) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    def make(self) -> np.dtype | None:
        is_plain = _PLAIN_DTYPE.fullmatch(self.code) and not _NOT_IN_TORCH.fullmatch(self.code)
        return np.dtype(self.order + self.code) if is_plain else None


class _Ordered(dict[Any, Any]):
    """An OrderedDict that ignores the attributes which PyTorch sets on a state_dict."""

    def __init__(self, pairs: Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__()
        for key, value in pairs:  # pickles of Python 2 have pairs
            if type(key) not in _PLAIN_KEY or (type(key) is int and key.bit_length() > 64):
                raise ValueError(f"a key of type {type(key).__name__}")
            self[key] = value

    def __setstate__(self, state: Any) -> None:
        pass


class _Function:
    """A function that a pickle may call, but whose attributes it cannot set."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("the pickle sets the state of a function")


class StorageType:
    """A type of storage, whose attributes a pickle cannot set."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        raise ValueError("the pickle sets the state of a type of storage")


def _tensor(storage: Storage, offset: int, size: tuple, stride: tuple, *rest: Any) -> SavedTensor:
    if len(rest) > 2 and rest[2]:
        raise Refused(
            "holds a conjugated or negated view of a tensor; save it with "
            ".resolve_conj().resolve_neg()."
        )
    return SavedTensor(storage, getattr(storage, "dtype", None), offset, size, stride)


def _tensor_of_dtype(
    storage: Storage,
    offset: int,
    size: tuple,
    stride: tuple,
    grad: Any,
    hooks: Any,
    dtype: torch.dtype,
    *rest: Any,
) -> SavedTensor:
    return SavedTensor(storage, dtype, offset, size, stride)


def _parameter(data: Any, *rest: Any) -> Any:
    return data


def _tensor_with_attributes(function: Any, kind: Any, arguments: tuple, *state: Any) -> Any:
    return function(*arguments) if isinstance(function, _Function) else None


def _array(*arguments: Any) -> SavedArray:
    return SavedArray()


def _array_of_buffer(data: Any, dtype: _Dtype, shape: tuple, order: str) -> SavedArray:
    made = SavedArray()
    made.fill(data, dtype, shape, order)
    return made


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Ordered,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor"): _Function(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): _Function(_tensor_of_dtype),
    ("torch._utils", "_rebuild_parameter"): _Function(_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Function(_parameter),
    ("torch._tensor", "_rebuild_from_type_v2"): _Function(_tensor_with_attributes),
}
_OF_NUMPY = {
    "_reconstruct": _Function(_array),
    "_frombuffer": _Function(_array_of_buffer),
    "ndarray": SavedArray,
    "dtype": _Dtype,
}


class Unpickler(pickle.Unpickler):
    """An unpickler that allows tensors and arrays by name, and makes `Inert` of any other name."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")
        self._may_encode = length_of(file)
        self._storages: dict[str, dict[tuple[torch.dtype, int], Storage]] = {}

    @property
    def storages(self) -> dict[str, list[Storage]]:
        """The storages of tensors, by name in the file; a name described in two ways has two."""
        return {key: list(of_key.values()) for key, of_key in self._storages.items()}

    def persistent_load(self, saved: Any) -> Any:
        """Return the storage that a tensor names, or the class of a module."""
        if saved[0] == "module":
            return saved[1]
        word, kind, key, _, count, *views = saved
        is_known = word == "storage" and isinstance(kind, StorageType) and type(key) is str
        if not is_known or type(count) is not int or not 0 <= count < 1 << 63:
            raise ValueError("the description of a storage is invalid")
        if views and views[0] is not None:
            raise Refused(
                "was written by a PyTorch before 0.4, with views of storages. Save it again with a "
                "later PyTorch."
            )
        of_key = self._storages.setdefault(key, {})
        return of_key.setdefault((kind.dtype, count), Storage(kind.dtype, count))

    def find_class(self, module: str, name: str) -> Any:
        """Return the object that replaces a name; nothing is imported."""
        if module.partition(".")[0] == "numpy":
            return _OF_NUMPY.get(name, Inert)
        if module.partition(".")[0] == "torch" and name in _BY_STORAGE:
            return StorageType(_BY_STORAGE[name])
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("_codecs", "encode"):
            return _Function(self._encode)
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            raise Refused(
                "holds tensors of pickle.dump, which only code can read. Load it where it was "
                "written, and save it with torch.save or as safetensors."
            )
        if name == "_rebuild_meta_tensor_no_storage":
            raise Refused(
                "holds tensors of the device meta, which have no numbers: save the model after "
                "loading its weights."
            )
        if (
            module == "torch._utils"
            and name.startswith("_rebuild_")
            and (module, name) not in _ALLOWED
        ):
            raise Refused(
                f"holds a tensor that is not dense ({name.removeprefix('_rebuild_')}): save it "
                "again after .to_dense() if it is sparse, .dequantize() if it is quantised, or "
                ".cpu() otherwise."
            )
        return _ALLOWED.get((module, name), Inert)

    def _encode(self, text: str, encoding: str) -> bytes:
        """Return the bytes of text, as pickles of Python 2 and of protocol 2 store bytes."""
        self._may_encode -= len(text)
        if self._may_encode < 0:
            raise Refused("encodes more text than it holds.")
        return text.encode("latin1")


def load(file: BinaryIO) -> Any:
    """Unpickle the next object of a file, which must not need storages outside the pickle.

    Raises:
        Refused: it exceeds the limits of ``pickle_limits``.
        Exception: of any type, for bytes that are not a pickle.
    """
    content, storages = load_with_storages(file)
    if storages:
        raise ValueError("the numbers of its tensors are missing")
    return content


def load_with_storages(file: BinaryIO) -> tuple[Any, dict[str, list[Storage]]]:
    """Unpickle the next object of a file, and return it with the storages that need their bytes.

    Raises:
        Refused: it exceeds the limits of ``pickle_limits``.
        Exception: of any type, for bytes that are not a pickle.
    """
    check_pickle(file)
    unpickler = Unpickler(file)
    return unpickler.load(), unpickler.storages
