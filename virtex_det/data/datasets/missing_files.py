"""Images that an annotation file lists and a disk does not have."""

import errno
import logging
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from virtex_det.errors import UserError
from virtex_det.image_files import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)


def leave_out_missing(dicts: list[dict[str, Any]], name: str, largest_share: float) -> list[dict[str, Any]]:
    """Leave out images whose file is not there, and say how many and which; too many are an error.

    Args:
        dicts: dataset dicts.
        name: of the data set.
        largest_share: part of the images that may be missing, DATASETS.MAX_MISSING_FILES.

    Raises:
        UserError: more are missing.
    """
    missing = find_missing(dicts)
    if not missing:
        return dicts
    found = [entry for entry in dicts if str(entry.get("file_name")) not in missing]
    absent = len(dicts) - len(found)
    what = (
        f"data set {name}: {absent} of {len(dicts)} images ({absent / len(dicts):.1%}) have no file, e.g.\n"
        f"{list_missing(missing)}"
    )
    if absent > largest_share * len(dicts):
        raise UserError(
            f"{what}\nAt most {largest_share:.1%} may be missing (DATASETS.MAX_MISSING_FILES). Complete the download, "
            "or check that the folder of images is the right one."
        )
    logger.warning("%s\nThey are left out.", what)
    return found


def find_missing(dicts: Iterable[dict[str, Any]]) -> set[str]:
    """Return the files of images that are not there, or are folders, pipes or broken links.

    Lists each folder once: asking for every file is slow on some disks. An image without a file name is
    left to its reader.
    """
    folders: dict[str, set[str]] = defaultdict(set)
    for entry in dicts:
        if "encoded_image" not in entry and "file_name" in entry:
            file = str(entry["file_name"])
            folders[file.rpartition("/")[0]].add(file)
    missing = set()
    for folder, inside in folders.items():
        if "://" not in folder:
            names = _names(Path(folder or "."))
            missing |= {file for file in inside if file.rpartition("/")[2] not in names}
    return missing


def list_missing(missing: set[str]) -> str:
    """Return the first of the missing files, a line each, with what their names tell of the cause."""
    shown = sorted(missing)[:5]
    beside = {folder: _names(Path(folder or ".")) for folder in {file.rpartition("/")[0] for file in shown}}
    lines = [f"  {file}{_similar(file, beside)}" for file in shown] + ["  ..."] * (len(missing) > 5)
    if os.sep == "/" and any("\\" in file for file in missing):
        lines.append("Their file_name has backslashes, which separate folders only on Windows: write / instead.")
    return "\n".join(lines)


def _similar(file: str, beside: Mapping[str, set[str]]) -> str:
    """Return a remark on a file of the same folder whose name differs only in what is easily mistaken."""
    folder, _, name = file.rpartition("/")
    wanted = _plain(name)
    found = sorted(other for other in beside[folder] if _plain(other) == wanted)
    return f" (there is {found[0]!r})" if found and wanted[0] else ""


def _plain(name: str) -> tuple[str, str]:
    """Return a name and the kind of its suffix, without case, spaces around it, and the form of its accents."""
    stem, dot, suffix = unicodedata.normalize("NFKC", name).casefold().strip().rpartition(".")
    return (stem, "image") if f".{suffix}" in IMAGE_SUFFIXES else (f"{stem}{dot}{suffix}", "")


def _names(folder: Path) -> set[str]:
    """Return the names of the regular files in a folder; none where no folder can be of that name."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if _is_file(entry)}
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte, or half a character
        return set()
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            return set()
        raise


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself, or to where nobody may look
        return False
