"""Images that two data sets share, whatever their names: files of equal content."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from virtex_det.own_data.survey import Survey
from virtex_det.utils import map_in_threads

_THREADS = 8  # they mostly wait for the disk


class Shared(NamedTuple):
    """Images of one data set that another one has, too.

    Attributes:
        names: of the two data sets.
        pairs: the two files of each image, by the file in the first.
    """

    names: tuple[str, str]
    pairs: list[tuple[str, str]]


def shared_images(surveys: Sequence[Survey]) -> list[Shared]:
    """Return the images that are in two of several data sets, each pair of sets that has some.

    Files are equal if their SHA-256 are. Only files that have the length of a file in another data
    set are read.
    """
    files = [_files(survey) for survey in surveys]
    sizes = [_by_size(of_set) for of_set in files]
    wanted = [
        file
        for number, of_set in enumerate(sizes)
        for size, same in of_set.items()
        if any(size in other for other in sizes[:number] + sizes[number + 1 :])
        for file in same
    ]
    with tqdm(desc="images", total=len(wanted), leave=False, delay=2, unit="file") as bar:
        hashes = map_in_threads(_sha256, wanted, _THREADS, on_done=bar.update)
    of_file = dict(zip(wanted, hashes, strict=True))
    by_hash = [{of_file[file]: file for file in of_set if file in of_file} for of_set in files]
    found = []
    for first, second in combinations(range(len(surveys)), 2):
        both = sorted(by_hash[first].keys() & by_hash[second].keys())
        pairs = sorted((by_hash[first][each], by_hash[second][each]) for each in both)
        if pairs:
            found.append(Shared((surveys[first].name, surveys[second].name), pairs))
    return found


def _files(survey: Survey) -> list[str]:
    names = (str(entry["file_name"]) for entry in survey.dicts if "encoded_image" not in entry)
    return [name for name in dict.fromkeys(names) if Path(name).is_file()]


def _by_size(files: Sequence[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for file in files:
        found[Path(file).stat().st_size].append(file)
    return found


def _sha256(file: str) -> bytes:
    return hashlib.sha256(Path(file).read_bytes()).digest()
