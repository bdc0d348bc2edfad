"""Localized Narratives (Pont-Tuset et al. 2020): spoken captions with a trace of the pointer."""

import logging
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from virtex_det.data.datasets.captions import caption_text
from virtex_det.data.datasets.folders import find_matching, is_data
from virtex_det.data.datasets.ids import check_id_or_name
from virtex_det.errors import UserError
from virtex_det.image_files import IMAGE_SUFFIXES, BrokenImage, inspect_image
from virtex_det.text_files import parse_json, read_lines
from virtex_det.utils import map_in_threads

logger = logging.getLogger(__name__)


_FORM = (
    '{"image_id": "", "caption": "", '
    '"timed_caption": [{"utterance": "", "start_time": 0.0, "end_time": 0.1}, ...], '
    '"traces": [[{"x": 0.5, "y": 0.5, "t": 0.0}, ...], ...]}'
)
_NUMBERS = frozenset((int, float))  # and not bool
_POINT = itemgetter("x", "y", "t")
# Images named in a message or in the log.
_NAMED = 10
_FAR = 3.0  # image sides; pointers leave the image, but by less


def load_narratives(
    jsonl_files: str | Path | Sequence[str | Path],
    image_root: str | Path,
    max_missing: float | None = None,
) -> list[dict[str, Any]]:
    """Load narratives in the published format, JSON lines.

    With a trace the text comes from the utterances, otherwise from the caption; the two may differ
    in punctuation. The log counts oddities, with the first line of each. These are kept: a
    narrative without points, words whose time ends before it starts, and points whose times run
    backwards (they are sorted). Points that are not numbers and narratives without words are left
    out. Missing images are listed.

    Args:
        jsonl_files: one file, several, or a pattern such as
            "coco_train_localized_narratives-*-of-*.jsonl".
        image_root: folder of the images, named by their ids; COCO's ids are padded with zeros to 12
            digits.
        max_missing: largest fraction of images without a file, which are left out. None keeps them;
            then the training loader leaves them out by DATASETS.MAX_MISSING_FILES.

    Returns:
        One dict per image, in the order of the files: file_name, image_id (a number if it was
        padded), height and width (if the image can be read), captions, and traces, one per caption:
        {"utterances": [(text, start, end), ...], "points": float32 (points, 3)}. Points have x and
        y as fractions of the image, possibly outside of it, and seconds, ascending. Traces of
        scenes also have "grounding".

    Raises:
        UserError: a file is missing, not JSON or in another format, or too many images are missing.
    """
    files = _resolve(jsonl_files)
    images, remarks = _Images(Path(image_root)), _Remarks()
    dicts: dict[str, dict[str, Any]] = {}
    id_of_file: dict[str, str] = {}
    missing: dict[str, str] = {}
    for place, image_id, caption, trace in _narratives(files, remarks):
        if image_id not in dicts:
            found, is_there = images.find(image_id)
            if id_of_file.setdefault(found["file_name"], image_id) != image_id:
                raise UserError(
                    f"{place}: image ids {id_of_file[found['file_name']]!r} and {image_id!r} are "
                    f"the same image, {found['file_name']}.\n"
                    "Write its id in one way."
                )
            dicts[image_id] = {**found, "captions": [], "traces": []}
            if not is_there:
                missing[image_id] = place
        dicts[image_id]["captions"].append(caption)
        dicts[image_id]["traces"].append(trace)
    remarks.log()
    if missing:
        _report_missing(missing, len(dicts), images.root, max_missing)
    kept = [
        each for image_id, each in dicts.items() if max_missing is None or image_id not in missing
    ]
    _add_sizes(kept)
    logger.info("Loaded %d narrated images from %s", len(kept), ", ".join(map(str, files)))
    return kept


def register_narratives(
    name: str,
    jsonl_files: str | Path | Sequence[str | Path],
    image_root: str | Path,
    max_missing: float | None = None,
    **metadata: Any,
) -> None:
    """Register narratives with Detectron2; they are read on first use.

    Args:
        name: name of the dataset, e.g. "coco_2017_train_narratives".
        jsonl_files: as for ``load_narratives``.
        image_root: folder of the images.
        max_missing: as for ``load_narratives``.
        metadata: other entries of its metadata.
    """
    DatasetCatalog.register(name, lambda: load_narratives(jsonl_files, image_root, max_missing))
    files = [str(file) for file in _listed(jsonl_files)]
    if len(files) == 1 and not _is_pattern(files[0]):
        metadata["json_file"] = files[0]
    MetadataCatalog.get(name).set(
        jsonl_files=files, image_root=str(image_root), evaluator_type="captions", **metadata
    )


class _Narrative(NamedTuple):
    place: str
    image_id: str
    caption: str
    trace: dict[str, Any]


class _Images:
    """The images of a folder, listed once, by their names without suffix."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UserError(
                f"there is no folder of images {root.absolute()}\nPut the narrated images there."
            )
        self.root = root
        self._names: dict[str, list[str]] = {}
        for path in sorted(root.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES and is_data(path.name):
                self._names.setdefault(path.stem, []).append(path.name)

    def find(self, image_id: str) -> tuple[dict[str, Any], bool]:
        """Return file_name and image_id, by name or by COCO's padded number, and whether it exists.

        Raises:
            UserError: several images have this name, with different suffixes.
        """
        known: int | str = image_id
        stem = image_id
        if image_id not in self._names and image_id.isascii() and image_id.isdecimal():
            known, stem = int(image_id), image_id.zfill(12)
        names = self._names.get(stem, [stem + IMAGE_SUFFIXES[0]])
        if len(names) > 1:
            raise UserError(
                f"{self.root} has {' and '.join(names)}, and image {image_id!r} is one of them.\n"
                "Remove one."
            )
        return {"file_name": str(self.root / names[0]), "image_id": known}, stem in self._names


class _Remarks:
    """Oddities of the files that are not errors: how often they occur, and where first."""

    def __init__(self) -> None:
        self._places: dict[str, list[Any]] = {}

    def add(self, remark: str, place: str) -> None:
        """Count a remark."""
        self._places.setdefault(remark, [place, 0])[1] += 1

    def log(self) -> None:
        """Log each remark once."""
        for remark, (place, count) in self._places.items():
            logger.warning("%d %s; first in %s", count, remark, place)


def _listed(jsonl_files: str | Path | Sequence[str | Path]) -> list[Path]:
    return [
        Path(file)
        for file in ([jsonl_files] if isinstance(jsonl_files, str | Path) else jsonl_files)
    ]


def _is_pattern(file: str | Path) -> bool:
    return "*" in Path(file).name


def _resolve(jsonl_files: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the files; all parts of a pattern must exist: half a dataset would train too."""
    files = []
    for file in _listed(jsonl_files):
        found = [*map(Path, find_matching(file))] if _is_pattern(file) else [file] * file.is_file()
        if not found:
            raise UserError(
                f"there is no {file.name} in {file.parent.absolute()}\n"
                "Put it there, or set DETECTRON2_DATASETS to the folder of your data sets."
            )
        if _is_pattern(file):
            _check_parts(found)
        files += found
    return files


def _check_parts(files: list[Path]) -> None:
    parts = re.search(r"-of-([0-9]+)", files[0].name)
    if parts and len(files) != int(parts[1]):
        raise UserError(
            f"{len(files)} of {int(parts[1])} parts are in {files[0].parent.absolute()}: "
            f"{', '.join(file.name for file in files)}\n"
            "Download the others, or register single parts by their names."
        )


def _records(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield each line with its place, one by one: the published files have gigabytes."""
    for place, line in read_lines(file, "a narrative a line"):
        yield place, parse_json(line, place)


def _narratives(files: Iterable[Path], remarks: _Remarks) -> Iterator[_Narrative]:
    for place, record in chain.from_iterable(map(_records, files)):
        try:
            narrative = _narrative(record, place, remarks)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(
                f"{place} is not a Localized Narrative: {type(error).__name__}: {error}\n"
                f"Expected {_FORM}"
            ) from error
        if narrative:
            yield narrative


def _narrative(record: dict[str, Any], place: str, remarks: _Remarks) -> _Narrative | None:
    """Read a line; None, with a remark, if it has no words."""
    utterances = []
    for said in record.get("timed_caption") or ():
        word = sys.intern(caption_text(said["utterance"], place))  # words repeat: keep one copy
        utterances.append((word, _seconds(said, "start_time"), _seconds(said, "end_time")))
    spoken = " ".join(text for text, _, _ in utterances)
    found = record.get("caption") or spoken
    if not isinstance(found, str):
        raise TypeError(f"the caption {found!r:.80} is not text")
    caption = caption_text(found, place)
    if not caption:
        remarks.add("narratives without a caption, left out", place)
        return None
    if spoken.split() != caption.split():
        remarks.add(
            "captions that differ from their utterances; with a trace the utterances are used",
            place,
        )
    if not all(start <= end for _, start, end in utterances):
        remarks.add(
            "narratives with words whose time ends before it starts; these words get no points",
            place,
        )
    trace = {
        "utterances": utterances,
        "points": _points(record.get("traces") or (), place, remarks),
    }
    if "grounding" in record:
        trace["grounding"] = record["grounding"]
    check_id_or_name(record["image_id"], f"{place} has image_id")
    return _Narrative(place, str(record["image_id"]), caption, trace)


def _seconds(said: dict[str, Any], key: str) -> float:
    value = said[key]
    if type(value) not in _NUMBERS:
        raise ValueError(
            f"the word {said['utterance']!r:.40} has {key} {value!r:.80}; expected a number of "
            "seconds"
        )
    return float(value) if math.isfinite(value) else math.nan


def _check_numbers(values: Iterable[Any]) -> None:
    """Refuse values that NumPy would convert to a number, such as text and True; null is NaN."""
    for value in values:
        if value is not None and type(value) not in _NUMBERS:
            raise ValueError(f"a point has {value!r:.80}; expected numbers under x, y and t")


def _points(
    segments: Iterable[Iterable[dict[str, float]]], place: str, remarks: _Remarks
) -> np.ndarray:
    """Return the points (points, 3) of all segments, by time."""
    values = [*chain.from_iterable(map(_POINT, chain.from_iterable(segments)))]
    if not _NUMBERS.issuperset(map(type, values)):
        _check_numbers(values)
    with np.errstate(over="ignore"):
        points = np.fromiter(values, dtype=np.float32).reshape(-1, 3)
    if not len(points):
        remarks.add("narratives without a trace, kept for their captions", place)
    finite = np.isfinite(points).all(axis=1)
    if not finite.all():
        remarks.add(
            "narratives with points that are not finite numbers; these points are left out", place
        )
        points = points[finite]
    if len(points) and (np.abs(points[:, :2]) > _FAR).mean() > 0.5:
        remarks.add(
            "narratives with points far outside the image: x and y are fractions of its sides, "
            "not pixels",
            place,
        )
    if (np.diff(points[:, 2]) < 0).any():
        remarks.add(
            "narratives with points whose times run backwards; they are sorted by time", place
        )
        points = points[points[:, 2].argsort(kind="stable")]
    return points


def _report_missing(
    missing: dict[str, str], total: int, image_root: Path, max_missing: float | None
) -> None:
    """Log the missing images and their lines, or raise an error if they are too many."""
    listed = "\n".join(f"  {image_id} ({place})" for image_id, place in [*missing.items()][:_NAMED])
    more = f"\n  and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    message = (
        f"{len(missing)} of {total} narrated images are not in {image_root.absolute()}:\n"
        f"{listed}{more}"
    )
    if len(missing) > total * (1 if max_missing is None else max_missing):
        raise UserError(
            f"{message}\n"
            f"At most a fraction of {max_missing} may be missing. Complete the download, or check "
            "the folder: the name of an image is its id, for COCO with 12 digits, and then one of "
            f"{' '.join(IMAGE_SUFFIXES)}."
        )
    logger.warning(message)


def _add_sizes(dicts: list[dict[str, Any]]) -> None:
    """Read height and width from the images' headers, in threads."""
    sizes = map_in_threads(_size, [each["file_name"] for each in dicts], threads=8)
    for each, size in zip(dicts, sizes, strict=True):
        each.update(size)


def _size(file_name: str) -> dict[str, int]:
    """Return the displayed height and width; empty for a broken image, which training skips."""
    try:
        height, width = inspect_image(file_name)
    except BrokenImage:
        return {}
    return {"height": height, "width": width}
