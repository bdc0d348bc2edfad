"""The SHA-256 of the weights file that was read, computed in a thread, once in a process."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import cast

from virtex_det.errors import UserError
from virtex_det.files import open_regular

Stamps = tuple[tuple[int, ...], ...]
_PIECE = 4 << 20  # bytes; large, so that the hashing thread seldom waits for the interpreter
_known: dict[Stamps, str] = {}  # a run reads its weights twice: before it begins, and to load them


class Digest(Thread):
    """The SHA-256 of one file, or of several files of one model.

    Args:
        files: the files that will be read. For several it is the hash of their hashes, in order.
        begin: start computing now, and not when ``wait`` asks for it.
    """

    def __init__(self, files: Sequence[Path], *, begin: bool = False) -> None:
        super().__init__(daemon=True)  # a process that refuses the file ends before the hashing
        self._files = files
        self._stamps = _stamps(files)
        self._found = _known.get(self._stamps, "")
        self._error: Exception | None = None
        if begin and self._stamps and not self._found:
            self.start()

    def run(self) -> None:
        """Compute the hash."""
        try:
            hashes = [file_sha256(file) for file in self._files]
            found = (
                hashes[0]
                if len(hashes) == 1
                else hashlib.sha256("".join(hashes).encode()).hexdigest()
            )
            if _stamps(self._files) == self._stamps:
                _known[self._stamps] = found
            self._found = found
        except Exception as error:  # wait() raises it
            self._error = error

    def wait(self) -> str:
        """Return the hash once it is computed.

        Raises:
            UserError: a file was replaced or changed, so the hash is not that of the file read.
        """
        if self.ident is not None:
            self.join()
        elif not self._found:
            self.run()
        if self._error is not None:
            raise self._error
        if _stamps(self._files) != self._stamps:
            raise UserError(
                f"{self._files[0]} changed after it was read. Wait until it is written completely, "
                "and load it again."
            )
        return self._found


def remember_sha256(file: Path, sha256: str) -> None:
    """Store the known hash of a file, so that loads need not compute it."""
    _known[_stamps([file])] = sha256


def file_sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read piece by piece."""
    digest, piece = hashlib.sha256(), memoryview(bytearray(_PIECE))
    with open_regular(path) as file:
        while length := cast(io.BufferedReader, file).readinto(piece):
            digest.update(piece[:length])
    return digest.hexdigest()


def _stamps(files: Sequence[Path]) -> Stamps:
    """Return numbers that differ once a file is replaced or changed."""
    found = [file.stat() for file in files if file.is_file()]
    return tuple(
        (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns) for status in found
    )
