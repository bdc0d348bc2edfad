"""Lists the files of a folder of data, without what operating systems and editors leave there."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

_NOT_DATA = ("__MACOSX", "Thumbs.db", "desktop.ini")


def is_data(name: str) -> bool:
    """Return whether a file or folder of that name may be data: it is not hidden, nor made by a system for itself.

    Example:
        >>> [name for name in (".ipynb_checkpoints", "._1.jpg", "__MACOSX", "1.jpg") if is_data(name)]
        ['1.jpg']
    """
    return not name.startswith(".") and name not in _NOT_DATA


def find_files(folder: str | Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files below a folder with one of some suffixes, in the order of their folders and then their names.

    Links to folders are followed, and a folder that is met again, as in a circle of links, is not entered again.

    Args:
        folder: searched through all levels.
        suffixes: in lower case, such as ".jpg"; those of the files may be in upper case.
    """
    found = [(root, name) for root, names in _walk(folder) for name in names]
    return [Path(root, name) for root, name in sorted(found) if Path(name).suffix.lower() in suffixes]


def _walk(folder: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder with the names of its files."""
    entered = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        state = Path(root).stat()
        if (state.st_dev, state.st_ino) in entered:
            folders.clear()
            continue
        entered.add((state.st_dev, state.st_ino))
        folders[:] = sorted(filter(is_data, folders))
        yield root, [name for name in names if is_data(name) and Path(root, name).is_file()]
