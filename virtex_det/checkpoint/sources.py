"""Opens a weights file, the same way for every caller: where it lies, what is in it, which network that is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode

from virtex_det.checkpoint.companions import told_beside
from virtex_det.checkpoint.hashing import Digest
from virtex_det.checkpoint.locating import files_of, locate
from virtex_det.checkpoint.reading import read_content
from virtex_det.checkpoint.recognition import recognise
from virtex_det.checkpoint.weights import Required, Weights
from virtex_det.errors import UserError


class Opened(NamedTuple):
    """A file that was read, whatever it holds."""

    path: str  # as it was given
    file: Path
    content: Any
    digest: Digest

    def weights(self, family: str = "", prefix: str = "", like: Sequence[str] = ()) -> Weights:
        """Return the network in it, as `recognise` finds it, with what files beside it say.

        Raises:
            UserError: it holds no network that is known, or several.
        """
        weights = recognise(self.content, self.path, family, prefix=prefix, like=like)
        return told_beside(self.file, weights, self.path)

    def sha256(self) -> str:
        """Return the hash of the file; of index and shards together where there are several.

        Raises:
            UserError: it is no longer the file that was read.
        """
        return self.digest.wait()


class Source(NamedTuple):
    """A file that was read, and the network in it."""

    opened: Opened
    weights: Weights

    @property
    def file(self) -> Path:
        """Where it lies."""
        return self.opened.file

    @property
    def content(self) -> Any:
        """What was read from it."""
        return self.opened.content

    def sha256(self) -> str:
        """Return the hash of the file, as `Opened` does."""
        return self.opened.sha256()


def open_file(path: str, *, mmap: bool = True, hashed: bool = False) -> Opened:
    """Read a weights file.

    Args:
        path: a file, a folder with one model, or an address that Detectron2's path handlers know.
        mmap: as for `read_file`.
        hashed: the hash will be asked for, and is taken meanwhile.

    Raises:
        UserError: it cannot be fetched or read.
    """
    file = locate(path)
    digest = Digest(files_of(file), begin=hashed)
    return Opened(path, file, read_content(file, mmap=mmap), digest)


def open_weights(
    path: str,
    cfg: CfgNode | None = None,
    *,
    like: Sequence[str] = (),
    family: str = "",
    prefix: str = "",
    hashed: bool = False,
) -> Source:
    """Read a weights file and find its network.

    Args:
        path: as for `open_file`.
        cfg: its MODEL.WEIGHTS_FORMAT and MODEL.WEIGHTS_PREFIX stand for family and prefix.
        like: the names of a model, for backbones that are no ResNet.
        family: take it as this one.
        prefix: of the network that is meant.
        hashed: as for `open_file`.

    Raises:
        UserError: it cannot be read, or holds no network that is known, or several.
    """
    opened = open_file(path, hashed=hashed)
    if cfg is not None:
        family, prefix = named_in(cfg)
    return Source(opened, opened.weights(family, prefix, like))


def open_for(
    names: Sequence[str],
    path: str,
    require: Required,
    cfg: CfgNode | None = None,
    *,
    mmap: bool = True,
) -> Source:
    """Open a file for a model; its hash is taken meanwhile.

    A file that fills a whole model is recognised by its content: MODEL.WEIGHTS_FORMAT is that of
    the weights that the training of it began with, and so is MODEL.WEIGHTS_PREFIX unless the file
    is ambiguous without it.

    Args:
        names: of the model's tensors.
        path: a file, a folder with one model, or an address.
        require: what is to be filled.
        cfg: as for `open_weights`.
        mmap: as for `read_file`.

    Raises:
        UserError: as `open_weights`.
    """
    opened = open_file(path, mmap=mmap, hashed=True)
    family, prefix = named_in(cfg)
    if require == "backbone":
        return Source(opened, opened.weights(family, prefix, names))
    try:
        return Source(opened, opened.weights(like=names))
    except UserError:
        if not prefix:
            raise
        return Source(opened, opened.weights("", prefix, names))


def named_in(cfg: CfgNode | None) -> tuple[str, str]:
    """Return the family and the prefix that a config names."""
    if cfg is None:
        return "", ""
    return cfg.MODEL.get("WEIGHTS_FORMAT", ""), cfg.MODEL.get("WEIGHTS_PREFIX", "")
