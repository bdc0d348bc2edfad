"""Bytes on disk to tensors and plain values. Nothing in a file is ever run; what cannot be read so is skipped."""

import hashlib
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.file_io import PathManager
from safetensors.torch import load_file

from virtex_det.checkpoint import unpickling
from virtex_det.checkpoint.torchscript import read_torchscript
from virtex_det.errors import UserError

_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before PyTorch 1.6
_PICKLE_MAGIC = re.compile(rb"\x80[\x02-\x05]")  # Detectron2's .pkl: binary pickles of NumPy arrays
_LFS_MAGIC = b"version https://git-lfs"
_FETCH_AGAIN = "fetch it again"


def local_path(path: str) -> Path:
    """Return where the file of a path or URL lies on disk, downloaded by Detectron2's path handlers if need be.

    Raises:
        UserError: when it cannot be fetched.
    """
    try:
        return Path(PathManager.get_local_path(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"Cannot fetch {path}: {error}. Check the address and the network, or give a local file."
        ) from error


def read_file(path: str | Path, *, mmap: bool = True) -> Any:
    """Read what torch.save, TorchScript, safetensors or Detectron2 wrote: tensors on the CPU, in plain containers.

    Other objects are None; a module, pickled or scripted, is the dict of its named tensors.

    Args:
        path: a file on disk, recognised by its content and not by its name.
        mmap: let tensors refer to the file instead of copying it, where its format allows. Right when they are copied
            into a model at once; wrong when they are kept, since someone may delete or rewrite the file.

    Raises:
        UserError: naming what the file is instead, and what to do; one line.
    """
    path = Path(path)
    head = _read_head(path)
    if head.startswith(_ZIP_MAGIC):
        return _read_zip(path, mmap)
    if head.startswith(_LEGACY_TORCH_MAGIC):
        return _torch_load(path, mmap=False)
    if _PICKLE_MAGIC.match(head):
        return _read_pickle(path)
    if _is_safetensors(head):
        return _read_safetensors(path)
    raise UserError(f"{path} {_what_else(head)}")


def file_sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read piece by piece."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _read_head(path: Path) -> bytes:
    if path.is_dir():
        inside = [child.name for child in sorted(path.iterdir()) if child.suffix in (".pth", ".pt", ".safetensors")]
        raise UserError(
            f"{path} is a folder, not a weights file; name one file in it ({', '.join(inside[:3]) or 'none'})."
        )
    if not path.exists():
        scheme = re.match(r"(\w+):/", str(path))
        hint = f"nothing here resolves {scheme[1]}:// addresses" if scheme else "check MODEL.WEIGHTS"
        raise UserError(f"No weights file at {path}: {hint}.")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
    if not head:
        raise UserError(f"{path} is empty (0 bytes): {_FETCH_AGAIN}.")
    return head


def _read_zip(path: Path, mmap: bool) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {Path(name).name for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is cut short ({path.stat().st_size:,} bytes): {_FETCH_AGAIN}.") from error
    if "data.pkl" not in members:
        raise UserError(f"{path} is a zip archive but no weights: expected what torch.save writes, or safetensors.")
    if "constants.pkl" not in members:
        return _torch_load(path, mmap=mmap)
    with _naming_damage(path):
        return unpickling.plain(read_torchscript(path, mmap=mmap))


def _torch_load(path: Path, mmap: bool) -> Any:
    with _naming_damage(path):
        content = torch.load(
            str(path), map_location="cpu", pickle_module=unpickling, weights_only=False, mmap=mmap, encoding="latin1"
        )
        return unpickling.plain(content)


def _read_pickle(path: Path) -> Any:
    with _naming_damage(path), path.open("rb") as file:
        return unpickling.plain(unpickling.load(file, encoding="latin1"))


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    with _naming_damage(path):
        return load_file(path, device="cpu")


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # bytes that are not what they should be can raise anything
        raise UserError(_is_damaged(path, error)) from error


def _is_damaged(path: Path, error: Exception) -> str:
    reason = str(error).partition("\n")[0] or "it ends too early"
    return f"{path} is cut short or damaged ({path.stat().st_size:,} bytes; {reason}): {_FETCH_AGAIN}."


def _is_safetensors(head: bytes) -> bool:
    # Eight bytes with the length of a JSON header, at most 100 MB, then the header.
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= 100_000_000


def _what_else(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(_LFS_MAGIC):
        return "is a Git-LFS pointer, not the weights themselves: run `git lfs pull` in the clone that it comes from."
    if text.startswith(b"<"):
        return "is a web page, not weights: the link wanted a login or a confirmation; fetch the file itself."
    if _is_text(head):
        return f"is a text file, not weights; it begins with {text[:60].decode(errors='replace')!r}."
    return f"is no weights file: its bytes begin {head[:8].hex(' ')}; expected what torch.save writes, or safetensors."


def _is_text(head: bytes) -> bool:
    text = head.decode(errors="ignore")  # the last character may be cut in two
    return len(text.encode()) >= len(head) - 3 and all(
        character.isprintable() or character.isspace() for character in text
    )
