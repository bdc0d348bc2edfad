"""Reading files of torch.save and torch.jit.save without PyTorch's own reader, which trusts them.

Each file has a pickle that describes tensors, and the bytes of their storages. In a zip archive
they are uncompressed members: files of torch.save since PyTorch 1.6, and TorchScript, in which
OpenAI publishes CLIP, and whose code is ignored. The older format of torch.save has them one after
the other.

PyTorch's restricted reader (``torch.load(weights_only=True)``) is enough for a run that checks its
own checkpoint, but not for files that others published. Of the 80 layouts in
tests/checkpoint/layouts.py that are not safetensors it refuses 20: scripts, and files with an
argparse.Namespace, a config or an array. It also ignores checksums, so that it loads a weight with
a bit flipped on the disk.
"""

import io
import mmap
import struct
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import torch

from virtex_det.checkpoint.pickle_limits import Refused
from virtex_det.checkpoint.unpickling import load, load_with_storages

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before PyTorch 1.6
MAX_DIRECTORY = 8 << 20  # bytes of a zip archive's list of members
# Magic; lengths of the name and the extra field that follow.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_END = struct.Struct("<4s8xII2x")  # of a zip archive: magic; size and place of its list of members
_END_64 = struct.Struct("<4s36xQQ")
_LOCATOR_64 = 20  # bytes between the two
_END_MAGIC = b"PK\5\6"
_LOCATOR_64_MAGIC = b"PK\6\7"


class Mapped:
    """A memory-mapped file.

    Args:
        file: a regular file that is not empty.
        copy: copy the bytes of storages; otherwise they refer to the file.
    """

    def __init__(self, file: BinaryIO, *, copy: bool) -> None:
        self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.bytes = torch.frombuffer(self.map, dtype=torch.uint8)
        self._copy = copy

    def part(self, begin: int, size: int) -> torch.Tensor:
        """Return bytes. Shape: (size,)."""
        if begin + size > len(self.bytes):
            raise ValueError("it ends too early")
        found = self.bytes[begin : begin + size]
        return found.clone() if self._copy else found


def read_archive(file: BinaryIO, mapped: Mapped) -> Any:
    """Return the content of a zip archive, not yet converted by ``plain``.

    Args:
        file: the archive.
        mapped: the same file.

    Raises:
        Refused: it is not an archive that PyTorch wrote.
        Exception: of any type, if it is damaged.
    """
    members = _members(file, mapped)
    pickled = [name for name in members if PurePosixPath(name).name == "data.pkl"]
    if not pickled:
        raise Refused(
            "is a zip archive without weights: expected a file of torch.save or safetensors."
        )
    if len(pickled) > 1:
        raise Refused(
            f"is a zip archive with several weights: {', '.join(pickled[:3])}. Split it into one "
            "file each."
        )
    folder = pickled[0].removesuffix("data.pkl")
    order = members.get(f"{folder}byteorder")
    if order is not None and order.read(mapped).numpy().tobytes() != b"little":
        raise Refused(
            "was written on a machine with big-endian byte order; save it again on a little-endian "
            "one."
        )
    described = io.BytesIO(members[pickled[0]].read(mapped).numpy().tobytes())
    content, storages = load_with_storages(described)
    for key, of_key in storages.items():
        found = members[f"{folder}data/{key}"].read(mapped)
        for storage in of_key:
            if len(found) < storage.size:
                raise ValueError(
                    f"{folder}data/{key} has {len(found):,} bytes instead of {storage.size:,}"
                )
            storage.bytes = found[: storage.size]
    return content


def read_legacy(mapped: Mapped) -> Any:
    """Return the content of a file in torch.save's older format, not yet converted by ``plain``.

    Raises:
        Exception: of any type, if it is damaged.
    """
    file: Any = mapped.map  # reads like a file
    _, version, system = load(file), load(file), load(file)
    if version != 1001 or not isinstance(system, dict) or not system.get("little_endian", True):
        raise Refused(
            "was written by an unknown version of PyTorch or on a machine with big-endian byte "
            "order. Save it again with a current PyTorch."
        )
    content, storages = load_with_storages(file)
    for key in load(file):
        if type(key) is not str:
            raise ValueError("the name of a storage is not text")
        storage, *others = storages[key]
        if others:
            raise ValueError(f"the storage {key} is described in two ways")
        (count,) = struct.unpack("<q", file.read(8))
        if count != storage.count:
            raise ValueError(f"a storage has {count:,} numbers instead of {storage.count:,}")
        storage.bytes = mapped.part(file.tell(), storage.size)
        file.seek(storage.size, 1)
    refuse_more(file)
    return content


def refuse_more(file: BinaryIO) -> None:
    """Refuse a second object after the first, which would be ignored silently.

    Args:
        file: at the end of the first object.
    """
    if file.read(2) == LEGACY_MAGIC[:2]:
        raise Refused(
            "holds several objects, one after the other: load it where it was written, and save "
            "one of them."
        )


class _Member(NamedTuple):
    """The place of a member's bytes in an archive."""

    name: str
    begin: int
    size: int
    crc: int
    is_stored: bool  # neither compressed nor encrypted

    def read(self, mapped: Mapped) -> torch.Tensor:
        """Return the bytes after checking their checksum. Shape: (size,)."""
        if not self.is_stored:
            raise Refused(
                f"is a zip archive whose member {self.name:.100} is compressed or encrypted, which "
                "PyTorch never does. Unpack it, or save the weights again."
            )
        found = mapped.part(self.begin, self.size)
        if zlib.crc32(found.numpy().data) != self.crc:
            raise ValueError(f"the checksum of {self.name:.100} is not that of its bytes")
        return found


def _members(file: BinaryIO, mapped: Mapped) -> dict[str, _Member]:
    _check_directory(mapped)
    with zipfile.ZipFile(file) as archive:
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    if infos and infos[0].header_offset:
        raise Refused(
            "holds several archives, one after the other, as parts of a distributed checkpoint "
            "(.distcp) do: convert it to one file with "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save."
        )
    members: dict[str, _Member] = {}
    end = 0
    for info in infos:
        if info.filename in members:
            raise Refused(f"is a zip archive with two members named {info.filename:.100}.")
        header = bytes(mapped.part(info.header_offset, _LOCAL_HEADER.size).numpy())
        magic, *lengths = _LOCAL_HEADER.unpack(header)
        if magic != b"PK\3\4" or info.header_offset < end:
            raise ValueError(f"the member {info.filename:.100} is inside another or missing")
        begin = info.header_offset + _LOCAL_HEADER.size + sum(lengths)
        end = begin + info.compress_size
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            raise ValueError(f"the member {info.filename:.100} has two sizes")
        is_stored = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
        members[info.filename] = _Member(info.filename, begin, info.file_size, info.CRC, is_stored)
    if end > len(mapped.bytes):
        raise ValueError("it ends too early")
    return members


def _check_directory(mapped: Mapped) -> None:
    """Refuse a list of members that is too long to be parsed."""
    place = mapped.map.rfind(_END_MAGIC, max(0, len(mapped.bytes) - (1 << 16) - _END.size))
    if place < 0:
        raise ValueError("it ends too early")
    _, size, _ = _END.unpack(mapped.map[place : place + _END.size])
    if mapped.map[max(place - _LOCATOR_64, 0) : place].startswith(_LOCATOR_64_MAGIC):
        place -= _LOCATOR_64 + _END_64.size
        _, size, _ = _END_64.unpack(mapped.map[max(place, 0) :][: _END_64.size])
    if size > MAX_DIRECTORY:
        raise Refused(
            f"is a zip archive whose list of members takes {size:,} bytes, more than "
            f"{MAX_DIRECTORY:,}."
        )
