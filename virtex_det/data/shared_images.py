"""Images that two datasets share, under one path or as copies."""

import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Callable, Hashable

from tqdm import tqdm

from virtex_det.errors import UserError
from virtex_det.files import open_regular
from virtex_det.utils import map_in_threads

_PART = 16 * 1024  # bytes in the middle of a file, which are compared before whole files
_MOST = 20_000  # files to read
_THREADS, _AT_ONCE = 8, 500  # the threads mostly wait for the disk; files per call

Groups = dict[Hashable, list[str]]


def find_shared_images(ours: set[str], theirs: set[str]) -> dict[str, str]:
    """Find the images of one dataset that another dataset has, too.

    Copies are files of equal content; an image that was saved anew is another file. Files are read
    only if the other dataset has a file of their size, and whole only if their middles are equal.
    If this leaves more than 20,000 files to read, only some of the sizes are looked at.

    Args:
        ours: paths of images.
        theirs: paths of the other dataset's.

    Returns:
        Path in the other dataset by path in ours.
    """
    shared = {file: file for file in ours & theirs}
    our_files, their_files = sorted(ours - theirs), sorted(theirs - ours)
    for key_of in (_size, _middle, _hash):
        of_ours, of_theirs = _group(our_files, key_of), _group(their_files, key_of)
        common = _affordable(
            {key: of_ours[key] + of_theirs[key] for key in of_ours if key in of_theirs}
        )
        our_files = [file for key in common for file in of_ours[key]]
        their_files = [file for key in common for file in of_theirs[key]]
    return shared | {file: of_theirs[key][0] for key in common for file in of_ours[key]}


def _affordable(groups: Groups) -> list[Hashable]:
    """Return keys of groups, at even distances, whose files are few enough to read."""
    small = [key for key, files in groups.items() if len(files) <= _MOST]
    number = sum(len(groups[key]) for key in small)
    return small[:: max(math.ceil(number / _MOST), 1)]


def _group(files: list[str], key_of: Callable[[str], Hashable]) -> Groups:
    """Group files by a property; those that cannot be read are left out."""

    def keys_of(part: list[str]) -> list[Hashable]:
        return [_key(file, key_of) for file in part]

    parts = [files[start : start + _AT_ONCE] for start in range(0, len(files), _AT_ONCE)]
    groups: Groups = defaultdict(list)
    with tqdm(desc="copies of images", total=len(parts), leave=False, delay=2) as bar:
        found = map_in_threads(keys_of, parts, _THREADS, on_done=bar.update)
    for part, keys in zip(parts, found, strict=True):
        for file, key in zip(part, keys, strict=True):
            if key is not None:
                groups[key].append(file)
    return groups


def _key(file: str, key_of: Callable[[str], Hashable]) -> Hashable:
    try:
        return key_of(file)
    except (OSError, UserError, ValueError):  # ValueError: a null byte in the name
        return None


def _size(file: str) -> Hashable:
    return os.stat(file).st_size  # noqa: PTH116  (Path's takes twice as long)


def _middle(file: str) -> Hashable:
    with open_regular(file) as opened:
        size = opened.seek(0, 2)
        opened.seek(max(0, (size - _PART) // 2))
        return size, opened.read(_PART)


def _hash(file: str) -> Hashable:
    with open_regular(file) as opened:
        return hashlib.sha256(opened.read()).digest()
