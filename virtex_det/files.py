"""Opening of users' files, only regular ones: pipes and devices may hang or have effects."""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from virtex_det.errors import UserError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_VIRTUAL = ("/dev/", "/proc/", "/sys/")  # folders of the kernel


def as_name(value: object, what: str) -> str:
    """Return the name of a file that a caller in Python gave, as text.

    Args:
        value: a text or a path.
        what: the file is, at the beginning of the message.

    Raises:
        UserError: it is something else.
    """
    name = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(name, str):
        raise UserError(
            f"{what} is given as a {type(value).__name__}; expected its name, a text or a path."
        )
    return name


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file, or a link to one, for reading bytes.

    Raises:
        UserError: it is a folder, a pipe, a socket or a device, is missing, or may not be read.
    """
    try:
        refuse_special(path, Path(path).stat())
        # so that a pipe put there meanwhile does not block
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise UserError(f"{path!s:.500} does not exist.") from error
    # ValueError: a null byte or a lone surrogate in the name
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path!s:.500} cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from error
    try:
        refuse_special(path, os.fstat(handle))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def refuse_special(path: str | Path, status: os.stat_result) -> None:
    """Refuse what is not a regular file.

    Args:
        path: its name.
        status: result of ``os.stat``.

    Raises:
        UserError: it is a folder, a pipe, a socket or a device.
    """
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(status.st_mode)), "something else")
        raise UserError(f"{path!s:.500} is {kind}, not a regular file. Name a regular file.")


def refuse_special_target(path: Path) -> None:
    """Refuse to replace anything but a regular file.

    In the kernel's folders nothing is replaced: /dev/stdout may lead to a regular file, but it is a
    link of the system.

    Raises:
        UserError: the path is a folder, a pipe, a socket or a device, such as /dev/stdout, or an
            invalid name.
    """
    try:
        folder = f"{os.path.realpath(path.parent)}/"
        if folder.startswith(_VIRTUAL) and not folder.startswith("/dev/shm/"):
            raise UserError(f"{path!s:.500} is in a folder of the system. Name a regular file.")
        refuse_special(path, path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return
    except ValueError as error:
        raise UserError(f"{path!s:.500} is not a valid file name: {error}.") from error
    except OSError as error:
        raise UserError(f"{path!s:.500} cannot be written: {error.strerror}.") from error


def check_output(output: str | Path | None, *inputs: object) -> None:
    """Refuse, before any work, a name that cannot be written, or that of a file that is read.

    Args:
        output: name of the file; None or "" for none.
        inputs: names of files, or of something else, such as a data set or an address.

    Raises:
        UserError: it cannot be a file, no file can be written to its folder, or it is one of the
            inputs, by this name or another.
    """
    if not output:
        return
    refuse_special_target(Path(output))
    check_output_folder(Path(output).parent)
    if not os.path.exists(output):  # noqa: PTH110  (Path's raises for a name that is too long)
        return
    for name in inputs:
        if not isinstance(name, str | os.PathLike) or not os.path.isfile(name):  # noqa: PTH113
            continue
        if os.path.samefile(output, name):  # noqa: PTH121
            raise UserError(
                f"{output!s:.500} is an input, which would be overwritten. Name another output."
            )


def check_output_folder(folder: str | Path) -> None:
    """Refuse, before any work, a folder that cannot be made or cannot be written to.

    The test is a temporary folder, in it or in the nearest folder above it: permissions alone do
    not tell for root, or for a file system that is read-only.

    Raises:
        UserError: names the folder and says why.
    """
    folder = Path(folder).absolute()
    # lexists: a broken link is in the way, too.
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        kind = "a file" if nearest.exists() else "a broken link"
        raise UserError(f"{nearest!s:.500} is {kind}, not a folder. Move it away, or name another.")
    try:
        with suppress(FileNotFoundError):
            folder.stat()  # refuses a name that is too long
        with tempfile.TemporaryDirectory(prefix=".virtex_det_", dir=nearest):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{folder!s:.500} cannot be written: {reason}. Name another folder."
        ) from error


def read_regular(path: str | Path, max_bytes: int) -> bytes:
    """Return the bytes of a regular file.

    Args:
        path: its name.
        max_bytes: largest size of such a file.

    Raises:
        UserError: as for ``open_regular``, or the file is larger.
    """
    with open_regular(path) as file:
        try:
            content = file.read(max_bytes + 1)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(content) > max_bytes:
        raise UserError(
            f"{path} has more than {max_bytes:,} bytes, the largest size allowed for this kind of "
            "file."
        )
    return content
