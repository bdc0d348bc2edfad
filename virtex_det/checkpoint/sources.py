"""Opens a weights file, the same way for every caller: its path, its network, what files beside it say."""

from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from detectron2.config import CfgNode

from virtex_det.checkpoint.companions import told_beside
from virtex_det.checkpoint.reading import file_sha256, local_path, read_file, stamp
from virtex_det.checkpoint.recognition import recognise
from virtex_det.checkpoint.shards import is_index, model_file, read_shards, shard_files, shards_sha256
from virtex_det.checkpoint.weights import Required, Weights
from virtex_det.errors import UserError

Stamps = tuple[tuple[int, ...], ...]


class Digest(Thread):
    """The hash of a file or a sharded model, taken beside other work: hashing and checksums let each other run."""

    def __init__(self, file: Path) -> None:
        super().__init__(daemon=True)  # a file that is refused meanwhile is not hashed to its end
        self._file = file
        self._found = ""
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        """Take it."""
        try:
            self._found = shards_sha256(self._file) if is_index(self._file) else file_sha256(self._file)
        except Exception as error:  # raised where the hash is asked for
            self._error = error

    def wait(self) -> str:
        """Return it once it is there."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._found


class Source(NamedTuple):
    """An opened weights file."""

    file: Path
    content: Any  # what was read from it
    weights: Weights
    stamps: Stamps  # of its files before they were read
    digest: Digest | None = None

    def sha256(self) -> str:
        """Return the hash of the file; of index and shards together where there are several.

        Raises:
            UserError: it is no longer the file that was read.
        """
        return read_sha256(self.file, self.stamps, self.digest)


def open_weights(
    path: str,
    cfg: CfgNode | None = None,
    *,
    like: Sequence[str] = (),
    family: str = "",
    prefix: str = "",
    mmap: bool = True,
    hashed: bool = False,
) -> Source:
    """Read a weights file and find its network.

    Args:
        path: a file, a folder with one model, or an address that Detectron2's path handlers know.
        cfg: its MODEL.WEIGHTS_FORMAT and MODEL.WEIGHTS_PREFIX stand for the next two.
        like: the names of a model, for backbones that are no ResNet.
        family: take it as this one.
        prefix: of the network that is meant.
        mmap: as for `read_file`.
        hashed: the hash will be asked for, and is taken meanwhile.

    Raises:
        UserError: it cannot be read, or holds no network that is known, or several.
    """
    file = locate(path)
    stamps = stamps_of(file)
    digest = Digest(file) if hashed and stamps else None
    content = read_content(file, mmap=mmap)
    if cfg is not None:
        family, prefix = cfg.MODEL.get("WEIGHTS_FORMAT", ""), cfg.MODEL.get("WEIGHTS_PREFIX", "")
    weights = recognise(content, path, family, prefix=prefix, like=like)
    return Source(file, content, told_beside(file, weights, path), stamps, digest)


def open_for(
    names: Sequence[str], path: str, require: Required, cfg: CfgNode | None = None, *, mmap: bool = True
) -> Source:
    """Open a file for a model; its hash is taken meanwhile.

    A file that fills a whole model is recognised by its content: MODEL.WEIGHTS_FORMAT is that of the weights that the
    training of it began with, and so is MODEL.WEIGHTS_PREFIX unless the file is ambiguous without it.

    Args:
        names: of the model's tensors.
        path: a file, a folder with one model, or an address.
        require: what is to be filled.
        cfg: as for `open_weights`.
        mmap: as for `read_file`.

    Raises:
        UserError: as `open_weights`.
    """
    if require == "backbone":
        return open_weights(path, cfg, like=names, mmap=mmap, hashed=True)
    try:
        return open_weights(path, like=names, mmap=mmap, hashed=True)
    except UserError:
        prefix = "" if cfg is None else cfg.MODEL.get("WEIGHTS_PREFIX", "")
        if not prefix:
            raise
        return open_weights(path, like=names, prefix=prefix, mmap=mmap, hashed=True)


def locate(path: str) -> Path:
    """Return where the file of a path or address lies; the one model in a folder that transformers or timm wrote.

    Raises:
        UserError: it cannot be fetched or read, or the folder has several models.
    """
    file = local_path(path)
    try:
        return model_file(file)
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def read_content(file: Path, *, mmap: bool = True) -> Any:
    """Read a file as `read_file` does, or all files of a sharded model as one."""
    return read_shards(file, mmap=mmap) if is_index(file) else read_file(file, mmap=mmap)


def stamps_of(file: Path) -> Stamps:
    """Return the stamps of a file, or of all files of a sharded model; of those that are there."""
    return tuple(stamp(each) for each in (shard_files(file) if is_index(file) else [file]) if each.is_file())


def read_sha256(file: Path, stamps: Stamps, digest: Digest | None = None) -> str:
    """Return the hash of a file that was read, or of a sharded model: of the hashes of its files, in order.

    Args:
        file: the file, or the index.
        stamps: of its files before they were read.
        digest: of the file, begun after the stamps were taken; None where it was not.

    Raises:
        UserError: another file has taken its name, or it was written to: its hash is not that of what was read.
    """
    found = (digest or Digest(file)).wait()
    if stamps_of(file) != stamps:
        raise UserError(f"{file} changed after it was read. Wait until it is written, and load it again.")
    return found
