"""The hash of a weights file, of the very file that was read, taken beside other work and once a process."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import cast

from virtex_det.errors import UserError
from virtex_det.files import open_regular

Stamps = tuple[tuple[int, ...], ...]
_PIECE = 4 << 20  # bytes; large, so that a thread that hashes seldom waits for the interpreter
_known: dict[Stamps, str] = {}  # a run looks at its weights before it begins, and loads them then


class Digest(Thread):
    """The hash of one file, or of several of one model; hashing and the checksums of reading let each other run.

    Args:
        files: that are about to be read. Of several it is the hash of their hashes, in order.
        begin: take it now; else when it is asked for.
    """

    def __init__(self, files: Sequence[Path], *, begin: bool = False) -> None:
        super().__init__(daemon=True)  # a file that is refused meanwhile is not hashed to its end
        self._files = files
        self._stamps = _stamps(files)
        self._found = _known.get(self._stamps, "")
        self._error: Exception | None = None
        if begin and self._stamps and not self._found:
            self.start()

    def run(self) -> None:
        """Take it."""
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
        except Exception as error:  # raised where the hash is asked for
            self._error = error

    def wait(self) -> str:
        """Return it once it is there.

        Raises:
            UserError: another file has taken a name, or one was written to: the hash is not that of
                what was read.
        """
        if self.ident is not None:
            self.join()
        elif not self._found:
            self.run()
        if self._error is not None:
            raise self._error
        if _stamps(self._files) != self._stamps:
            raise UserError(
                f"{self._files[0]} changed after it was read. Wait until it is written, and load "
                "it again."
            )
        return self._found


def remember_sha256(file: Path, sha256: str) -> None:
    """Spare loads of a file the hashing of it: the hash is known from elsewhere."""
    _known[_stamps([file])] = sha256


def file_sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read piece by piece."""
    digest, piece = hashlib.sha256(), memoryview(bytearray(_PIECE))
    with open_regular(path) as file:
        while length := cast(io.BufferedReader, file).readinto(piece):
            digest.update(piece[:length])
    return digest.hexdigest()


def _stamps(files: Sequence[Path]) -> Stamps:
    """Return what tells files from others that take their names, and from themselves once they are written to."""
    found = [file.stat() for file in files if file.is_file()]
    return tuple(
        (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns) for status in found
    )
