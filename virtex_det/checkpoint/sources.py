"""Opening a weights file, in the same way for every caller: find it, read it, find its network."""

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
    """A file that was read, with any content."""

    path: str  # as it was given
    file: Path
    content: Any
    digest: Digest

    def weights(self, family: str = "", prefix: str = "", like: Sequence[str] = ()) -> Weights:
        """Return its network, as `recognise` finds it, with the facts of files beside it.

        Raises:
            UserError: it has no known network, or several.
        """
        weights = recognise(self.content, self.path, family, prefix=prefix, like=like)
        return told_beside(self.file, weights, self.path)

    def sha256(self) -> str:
        """Return the hash of the file, or of an index and its shards together.

        Raises:
            UserError: the file changed after it was read.
        """
        return self.digest.wait()


class Source(NamedTuple):
    """A file that was read, and the network in it."""

    opened: Opened
    weights: Weights

    @property
    def file(self) -> Path:
        """The file on disk."""
        return self.opened.file

    @property
    def content(self) -> Any:
        """The content of the file."""
        return self.opened.content

    def sha256(self) -> str:
        """Return the hash of the file, as `Opened` does."""
        return self.opened.sha256()


def open_file(path: str, *, mmap: bool = True, hashed: bool = False) -> Opened:
    """Read a weights file.

    Args:
        path: a file, a folder with one model, or an address that Detectron2's path handlers know.
        mmap: as for `read_file`.
        hashed: start computing the hash now, since it will be needed.

    Raises:
        UserError: it cannot be downloaded or read.
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
        cfg: its MODEL.WEIGHTS_FORMAT and MODEL.WEIGHTS_PREFIX replace family and prefix.
        like: the names of a model, for a backbone that is not a ResNet.
        family: of the network.
        prefix: of the network.
        hashed: as for `open_file`.

    Raises:
        UserError: it cannot be read, or has no known network, or several.
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
    """Open a file for a model, and compute its hash meanwhile.

    A file for a whole model is recognised by its content: MODEL.WEIGHTS_FORMAT and
    MODEL.WEIGHTS_PREFIX describe the weights that its training started from. The prefix is used
    only if the file is ambiguous without it.

    Args:
        names: of the model's tensors.
        path: a file, a folder with one model, or an address.
        require: what must be filled.
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
