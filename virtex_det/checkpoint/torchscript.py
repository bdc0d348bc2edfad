"""The tensors of a TorchScript archive, such as OpenAI publishes CLIP in, without its code."""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from virtex_det.checkpoint.unpickling import Unpickler

_STORAGES = {
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
}
_LOCAL_HEADER = 30  # bytes before a member's name; the last four are the lengths of name and extra field


def read_torchscript(path: Path, *, mmap: bool = True) -> Any:
    """Return the archive's module as unpickling made it, its tensors referring to the file.

    Args:
        path: a zip archive of torch.jit.save.
        mmap: let the tensors refer to the file instead of copying it.
    """
    with zipfile.ZipFile(path) as archive:
        pickled = next(name for name in archive.namelist() if Path(name).name == "data.pkl")
        storages = _Storages(path, archive, pickled.removesuffix(".pkl"), mmap)
        return _ScriptUnpickler(io.BytesIO(archive.read(pickled)), storages).load()


class _Storages:
    """The numbers of an archive: members of its ``data`` folder, which are never compressed."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, folder: str, mmap: bool) -> None:
        self.archive, self.folder, self.mmap = archive, folder, mmap
        self.bytes = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        member = self.archive.getinfo(f"{self.folder}/{name}")
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member.filename} is compressed")
        lengths = bytes(self.bytes[member.header_offset + _LOCAL_HEADER - 4 :][:4].tolist())
        start = member.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", lengths))
        numbers = self.bytes[start : start + member.file_size].view(dtype)
        return numbers if self.mmap else numbers.clone()


class _ScriptUnpickler(Unpickler):
    def __init__(self, file: io.BytesIO, storages: _Storages) -> None:
        super().__init__(file)
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _strided
        return super().find_class(module, name)

    def persistent_load(self, saved: Any) -> torch.Tensor:
        _, dtype, name, *_ = saved
        return self.storages.read(name, dtype)


def _strided(storage: torch.Tensor, offset: int, size: tuple, stride: tuple, *rest: Any) -> torch.Tensor:
    return storage.as_strided(size, stride, offset + storage.storage_offset())
