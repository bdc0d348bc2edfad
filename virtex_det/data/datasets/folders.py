"""Files of a data folder, without those that operating systems and editors leave there."""

import glob
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from virtex_det.errors import UserError

# Files of the systems themselves, in lower case: macOS, Windows, file systems, network disks,
# Python.
_NOT_DATA = (
    *(
        "__macosx",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "system volume information",
    ),
    *("lost+found", "@eadir", "#recycle", "@recycle", "@__thumb", "__pycache__"),
)


def is_data(name: str) -> bool:
    """Return whether a name may be data: it is neither hidden nor one of a system's own files.

    Example:
        >>> is_data("1.jpg"), is_data("._1.jpg"), is_data("__MACOSX")
        (True, False, False)
    """
    return not name.startswith(".") and name.lower() not in _NOT_DATA


def find_files(folder: str | Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files below a folder that have one of some suffixes, by folder and then by name.

    Links to folders are followed, but each folder is entered only once, also in a circle of links.

    Args:
        folder: folder to search recursively.
        suffixes: suffixes in lower case, such as ".jpg"; files may have them in upper case.

    Raises:
        UserError: a folder cannot be read, so that its files would be left out.
    """
    found = [(root, name) for root, names in _walk(folder) for name in names]
    return [
        Path(root, name) for root, name in sorted(found) if Path(name).suffix.lower() in suffixes
    ]


def find_matching(pattern: str | Path) -> list[str]:
    """Return the sorted matches of a pattern with ``*``; hidden files match only by name.

    Args:
        pattern: pattern of files or folders; ``**`` matches folders of any depth.
    """
    named = Path(pattern).parts
    # Path.glob takes no absolute pattern.
    found = glob.glob(str(pattern), recursive=True)  # noqa: PTH207
    return sorted(
        name for name in found if all(_is_meant(part, named) for part in Path(name).parts)
    )


def _is_meant(part: str, named: tuple[str, ...]) -> bool:
    """Return whether a part of a path is data, or is named in the pattern."""
    return part.startswith(".") or part in named or is_data(part)


def _walk(folder: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder with the names of its files.

    Raises:
        UserError: a folder cannot be read.
    """
    entered = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        state = Path(root).stat()
        if (state.st_dev, state.st_ino) in entered:
            folders.clear()
            continue
        entered.add((state.st_dev, state.st_ino))
        folders[:] = sorted(filter(is_data, folders))
        yield root, [name for name in names if is_data(name) and Path(root, name).is_file()]


def _refuse(error: OSError) -> None:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return
    raise UserError(
        f"The folder {error.filename} cannot be read: {error.strerror}.\n"
        "Its files would be missing. Make it readable, or move it away."
    ) from error
