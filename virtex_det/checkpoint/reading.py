"""Reading files into tensors and plain values; code in a file never runs, objects are skipped."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from safetensors.torch import load_file

from virtex_det.checkpoint import unpickling
from virtex_det.checkpoint.locating import is_index, locate, tensors_by_shard
from virtex_det.checkpoint.pickle_limits import Refused
from virtex_det.checkpoint.plain_values import plain
from virtex_det.checkpoint.torch_files import (
    LEGACY_MAGIC,
    Mapped,
    read_archive,
    read_legacy,
    refuse_more,
)
from virtex_det.errors import UserError
from virtex_det.files import open_regular

MAX_HEADER = 16 << 20  # bytes of the header of a safetensors file
_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE_MAGIC = re.compile(rb"\x80[\x02-\x05]")  # Detectron2's .pkl: binary pickles of NumPy arrays
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"7z\xbc\xaf": "7-Zip",
    b"Rar!": "RAR",
    b"ustar": "tar",
}
_LFS_MAGIC = b"version https://git-lfs"
_DOWNLOAD_AGAIN = "delete it, and download or copy it again"


def read_content(file: Path, *, mmap: bool = True) -> Any:
    """Read a file as `read_file` does, or all files of a sharded model as one.

    Raises:
        UserError: a file is missing, cannot be read, or lacks a tensor that the index names.
    """
    return _read_shards(file, mmap=mmap) if is_index(file) else read_file(file, mmap=mmap)


def read_file(path: str | Path, *, mmap: bool = True) -> Any:
    """Read a file of torch.save, TorchScript, safetensors or Detectron2.

    Returns tensors on the CPU in plain containers. A module, pickled or scripted, becomes the dict
    of its named tensors; other objects become None. Sizes are bounded: see ``pickle_limits``,
    ``plain_values`` and ``torch_files``.

    Args:
        path: a file on disk, recognised by its content and not by its name.
        mmap: let tensors refer to the file instead of copying it, if its format allows. Use it if
            they are copied into a model at once, but not if they are kept, since someone may delete
            or rewrite the file.

    Raises:
        UserError: in one line, what the file is instead, and what to do.
    """
    path = Path(path)
    with _opened(path) as file, _naming_damage(path), _unchanged(file):
        head = _beginning(file)
        if head.startswith(_ZIP_MAGIC):
            mapped = Mapped(file, copy=not mmap)
            return plain(read_archive(file, mapped), len(mapped.bytes))
        if head.startswith(LEGACY_MAGIC):
            mapped = Mapped(file, copy=not mmap)
            return plain(read_legacy(mapped), len(mapped.bytes))
        if _PICKLE_MAGIC.match(head):
            mapped = Mapped(file, copy=True)
            content = unpickling.load(cast(BinaryIO, mapped.map))
            refuse_more(cast(BinaryIO, mapped.map))
            return plain(content, len(mapped.bytes))
        return _read_safetensors(path, file)


def check_path(path: str) -> None:
    """Refuse a path that is missing, a folder without weights, or a file of another kind.

    Only the first bytes of the file are read.

    Args:
        path: a file, or a folder with one model.

    Raises:
        UserError: as ``read_content``.
    """
    file = locate(path)
    if not is_index(file):
        with _opened(file) as opened, _naming_damage(file):
            _beginning(opened)


def not_weights(beginning: bytes) -> str:
    """Return what a file is instead of weights, by its first 512 bytes; "" if it may be weights."""
    magic = (_ZIP_MAGIC, LEGACY_MAGIC)
    if beginning.startswith(magic) or _PICKLE_MAGIC.match(beginning) or _is_safetensors(beginning):
        return ""
    return _what_else(beginning)


def _beginning(file: BinaryIO) -> bytes:
    """Return the first bytes of a file; refuse it if they are not those of weights."""
    head = file.read(512)
    if not head:
        raise Refused(f"is empty (0 bytes): {_DOWNLOAD_AGAIN}.")
    if problem := not_weights(head):
        raise Refused(problem)
    return head


def _read_shards(index: Path, *, mmap: bool = True) -> dict[str, torch.Tensor]:
    """Read all tensors that an index names from their files."""
    tensors: dict[str, torch.Tensor] = {}
    for shard, names in tensors_by_shard(index).items():
        file = index.with_name(shard)
        if not file.is_file():
            raise UserError(
                f"{index} names {shard}, which is not in its folder: download that file too."
            )
        content = read_file(file, mmap=mmap)
        for name in names:
            value = content.get(name) if isinstance(content, Mapping) else None
            if not isinstance(value, torch.Tensor):
                raise UserError(
                    f"{index} says that {name} is in {shard}, but it is not: download both again."
                )
            tensors[name] = value
    return tensors


def _opened(path: Path) -> BinaryIO:
    if path.is_dir():
        inside = [
            child.name
            for child in sorted(path.iterdir())
            if child.suffix in (".pth", ".pt", ".safetensors")
        ]
        advice = (
            f"name a file in it, such as {', '.join(inside[:3])}"
            if inside
            else "it has no .pth, .pt or .safetensors file: name a weights file"
        )
        raise UserError(f"{path} is a folder, not a weights file; {advice}.")
    if not path.exists():
        scheme = re.match(r"(\w+):/", str(path))
        hint = f"{scheme[1]}:// addresses are not supported" if scheme else "check the path"
        raise UserError(f"No weights file at {path}: {hint}.")
    return open_regular(path)


@contextmanager
def _unchanged(file: BinaryIO) -> Iterator[None]:
    before = os.fstat(file.fileno())
    yield
    now = os.fstat(file.fileno())
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise Refused(
            "changed while it was read. Wait until it is written completely, and load it again."
        )


def _read_safetensors(path: Path, file: BinaryIO) -> dict[str, torch.Tensor]:
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length), object_pairs_hook=_each_once)
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return load_file(path, device="cpu")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise Refused("has the same name twice in its header; save it again with each tensor once.")
    return content


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except Refused as error:
        raise UserError(f"{path} {error}") from error
    except Exception as error:  # invalid bytes can raise any error
        raise UserError(_is_damaged(path, error)) from error


def _is_damaged(path: Path, error: Exception) -> str:
    reason = str(error).partition("\n")[0][:200] or "it ends too early"
    return (
        f"{path} is cut short or damaged ({path.stat().st_size:,} bytes; {reason}): "
        f"{_DOWNLOAD_AGAIN}."
    )


def _is_safetensors(head: bytes) -> bool:
    # Eight bytes with the length of the JSON header, then the header.
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER


def _what_else(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(_LFS_MAGIC):
        return (
            "is a Git LFS pointer, not weights: run `git lfs pull` in the clone that it comes from."
        )
    if text.startswith(b"<") or re.search(rb"<(!doctype )?html", head, re.IGNORECASE):
        return (
            "is a web page, not weights: the link needs a login or a confirmation; download the "
            "file itself."
        )
    if _is_text(head):
        return (
            f"is a text file, not weights; it begins with {text[:60].decode(errors='replace')!r}."
        )
    for magic, name in _PACKED.items():
        if head.startswith(magic) or head[257:262] == magic:
            return (
                f"is an archive of {name}, not weights: unpack it, and name the weights file in it."
            )
    return (
        f"is not a weights file: its first bytes are {head[:8].hex(' ')}; expected a file of "
        "torch.save or safetensors."
    )


def _is_text(head: bytes) -> bool:
    text = head.decode(errors="ignore")  # the last character may be cut in two
    return len(text.encode()) >= len(head) - 3 and all(
        character.isprintable() or character.isspace() for character in text
    )
