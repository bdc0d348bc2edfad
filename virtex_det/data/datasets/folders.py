"""Lists the files of a folder of data, without what operating systems and editors leave there."""

import glob
import os
from collections.abc import Collection, Iterator
from pathlib import Path

# What systems make for themselves, in lower case: macOS, Windows, file systems, disks on a network, Python.
_NOT_DATA = (
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("lost+found", "@eadir", "#recycle", "@recycle", "@__thumb", "__pycache__"),
)


def is_data(name: str) -> bool:
    """Return whether a file or folder of that name may be data: it is not hidden, nor made by a system for itself.

    Example:
        >>> [name for name in (".ipynb_checkpoints", "._1.jpg", "__MACOSX", "1.jpg") if is_data(name)]
        ['1.jpg']
    """
    return not name.startswith(".") and name.lower() not in _NOT_DATA


def find_files(folder: str | Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files below a folder with one of some suffixes, in the order of their folders and then their names.

    Links to folders are followed, and a folder that is met again, as in a circle of links, is not entered again.

    Args:
        folder: searched through all levels.
        suffixes: in lower case, such as ".jpg"; those of the files may be in upper case.
    """
    found = [(root, name) for root, names in _walk(folder) for name in names]
    return [Path(root, name) for root, name in sorted(found) if Path(name).suffix.lower() in suffixes]


def find_matching(pattern: str | Path) -> list[str]:
    """Return what a pattern with ``*`` names, in order; of hidden files and of debris only what it names as such.

    Args:
        pattern: also of folders; ``**`` stands for folders of any depth.
    """
    named = Path(pattern).parts
    found = glob.glob(str(pattern), recursive=True)  # noqa: PTH207  Path.glob takes no absolute pattern
    return sorted(name for name in found if all(_is_meant(part, named) for part in Path(name).parts))


def _is_meant(part: str, named: tuple[str, ...]) -> bool:
    """Return whether a part of a path is data or stands in the pattern; ``*`` alone names nothing that is hidden."""
    return part.startswith(".") or part in named or is_data(part)


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
