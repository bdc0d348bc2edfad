"""Images in an annotation file whose file is missing."""

import errno
import logging
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from virtex_det.errors import UserError
from virtex_det.image_files import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)


def leave_out_missing(
    dicts: list[dict[str, Any]], name: str, largest_share: float
) -> list[dict[str, Any]]:
    """Leave out images without a file, with a warning; too many are an error.

    Args:
        dicts: dataset dicts.
        name: name of the dataset.
        largest_share: fraction of the images that may be missing, DATASETS.MAX_MISSING_FILES.

    Raises:
        UserError: too many files are missing.
    """
    missing = find_missing(dicts)
    if not missing:
        return dicts
    found = [entry for entry in dicts if str(entry.get("file_name")) not in missing]
    absent = len(dicts) - len(found)
    what = (
        f"data set {name}: {absent} of {len(dicts)} images ({absent / len(dicts):.1%}) have no "
        "file, e.g.\n"
        f"{list_missing(missing)}"
    )
    if absent > largest_share * len(dicts):
        raise UserError(
            f"{what}\n"
            f"At most {largest_share:.1%} may be missing (DATASETS.MAX_MISSING_FILES). Complete "
            "the download, or check the folder of images."
        )
    logger.warning("%s\nThey are left out.", what)
    return found


def refuse_addresses(dicts: Sequence[Mapping[str, Any]], name: str) -> None:
    """Refuse images that are named by an address rather than a path.

    Raises:
        UserError: names the first.
    """
    for key in ("file_name", "sem_seg_file_name"):
        addresses = [file for entry in dicts if "://" in (file := str(entry.get(key, "")))]
        if addresses and "encoded_image" not in dicts[0]:
            raise UserError(
                f"data set {name}: the {key} of {len(addresses)} of {len(dicts)} images is an "
                f"address, e.g. {addresses[0]}\nImages are read from disk and never fetched: "
                f"download them, and let {key} be a path."
            )


def find_missing(dicts: Iterable[dict[str, Any]]) -> set[str]:
    """Return the image files that are missing, or are folders, pipes or broken links.

    Each folder is listed once: a query per file is slow on some disks. Images without a file name
    are not checked.
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
    """Return the first missing files, one per line, with hints at the cause."""
    shown = sorted(missing)[:5]
    beside = {
        folder: _names(Path(folder or "."))
        for folder in {file.rpartition("/")[0] for file in shown}
    }
    lines = [f"  {file}{_similar(file, beside)}" for file in shown] + ["  ..."] * (len(missing) > 5)
    if os.sep == "/" and any("\\" in file for file in missing):
        lines.append(
            "Their file_name has backslashes, which separate folders only on Windows: use / "
            "instead."
        )
    return "\n".join(lines)


def _similar(file: str, beside: Mapping[str, set[str]]) -> str:
    """Return a hint at a file of the same folder with nearly the same name."""
    folder, _, name = file.rpartition("/")
    wanted = _plain(name)
    found = sorted(other for other in beside[folder] if _plain(other) == wanted)
    return f" (there is {found[0]!r})" if found and wanted[0] else ""


def _plain(name: str) -> tuple[str, str]:
    """Return a name's stem and kind, normalised in case, surrounding spaces and accents."""
    stem, dot, suffix = unicodedata.normalize("NFKC", name).casefold().strip().rpartition(".")
    return (stem, "image") if f".{suffix}" in IMAGE_SUFFIXES else (f"{stem}{dot}{suffix}", "")


def _names(folder: Path) -> set[str]:
    """Return the names of the regular files in a folder; empty if the folder cannot exist."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if _is_file(entry)}
    # ValueError: a null byte or a lone surrogate
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return set()
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            return set()
        raise


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a circular link, or one to a forbidden place
        return False
