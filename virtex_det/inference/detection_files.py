"""What a detector finds in many pictures, as files: COCO's results, counts, a page, drawings."""

import contextlib
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from tqdm import tqdm

from virtex_det.data.pictures import Picture, in_one_line, warn_of_broken
from virtex_det.data.videos import Frame, VideoWriter, read_head, writing_video
from virtex_det.errors import UserError
from virtex_det.escaping import in_csv, printable
from virtex_det.files import check_output_folder
from virtex_det.image_files import BrokenImage
from virtex_det.inference.detector import Detector
from virtex_det.inference.image_detections import ImageDetections
from virtex_det.inference.pages import encode_jpeg, write_page
from virtex_det.inference.picture_folder import Save, drawing_into
from virtex_det.inference.result_ids import Ids, number_of_classes
from virtex_det.pages.html import data_uri
from virtex_det.pages.paths import shown_path
from virtex_det.utils import map_ahead, replacing, write_atomically

DETECTIONS = "detections.json"
IMAGES = "images.json"
COUNTS = "counts.csv"
PAGE = "detections.html"
PICTURES = "pictures"
VIDEOS = "videos"
DRAWN_FROM = 0.5  # score of the detections that are drawn and counted where none is asked for

_OWN = {DETECTIONS, IMAGES, COUNTS, PAGE, PICTURES, VIDEOS}
_THUMBNAIL_SIDE = 480  # pixels
_MOST_SHOWN = 100  # pictures on the page
_SKIPPED_SHOWN = 50
_THREADS = 2  # that draw
_AHEAD = 4  # pictures that may wait to be drawn


class Written(NamedTuple):
    """How many pictures and detections were written, and how many pictures were left out."""

    pictures: int
    detections: int
    skipped: int


class _Found(NamedTuple):
    """What was found in a picture."""

    number: int  # from 0
    image_id: int | str
    picture: Picture
    found: ImageDetections | BrokenImage


class _Drawn(NamedTuple):
    """What a readable picture gives for the files, the page and its video."""

    found: ImageDetections
    shown: ImageDetections  # what is drawn and counted
    thumbnail: str = ""  # data URI
    frame: np.ndarray | None = None


def check_output(folder: str | Path) -> None:
    """Refuse a folder that cannot be written, or has other files than those of predictions.

    Raises:
        UserError: it is one, or is no folder.
    """
    check_output_folder(folder)
    folder = Path(folder)
    if not folder.exists():
        return
    others = [
        path.name
        for path in folder.iterdir()
        if path.name not in _OWN and not path.name.startswith(".")
    ]
    if others:
        shown = ", ".join(printable(name) for name in sorted(others)[:3])
        raise UserError(
            f"The output folder {folder} holds other things: {shown:.200}"
            f"{' ...' if len(others) > 3 else ''}\n"
            "Predictions go into a new folder, an empty one, or that of earlier predictions, which "
            "are replaced. Name one: --output FOLDER"
        )


def write_detections(
    folder: str | Path,
    detector: Detector,
    paths: Sequence[Path],
    ids: Ids,
    *,
    draw: bool = False,
    total: int | None = None,
) -> Written:
    """Write what a detector finds in image files and videos, behind a progress bar.

    ``detections.json`` is a results file in COCO's format. ``images.json`` says which images and
    categories its ids mean, as the annotation files of COCO do. ``counts.csv`` counts the objects
    of each class in each picture, and ``detections.html`` shows them; both take those from
    DRAWN_FROM on where the detector has no threshold. ``pictures/`` has each picture with its
    detections, in place of those of an earlier call, and ``videos/`` each video. Each file is
    written whole or not at all. Pictures are read and drawn while the model works, one by one, so
    that memory does not grow with their number. Files that cannot be read are logged.

    Args:
        folder: made where it is not there.
        detector: finds, and keeps what its ``selection`` says.
        paths: of the pictures and videos.
        ids: of pictures and classes.
        draw: write ``pictures/`` and ``videos/``.
        total: number of pictures and frames; None: of paths.

    Raises:
        UserError: none of the files can be read.
    """
    folder = Path(folder)
    total = total or len(paths)
    report = _Report(detector, total)
    with (
        drawing_into(folder / PICTURES, paths) as save,
        replacing(folder / DETECTIONS) as part,
        part.open("w", encoding="utf-8") as file,
        _Videos(folder / VIDEOS) as videos,
    ):
        results = _ListWriter(file)
        found = _detect(detector, paths, ids.images, total)
        draw_one = partial(_draw, report=report, save=save if draw else None)
        for each, drawn in map_ahead(draw_one, found, _THREADS, _AHEAD):
            if isinstance(drawn, BrokenImage):
                report.skip(each.picture, drawn)
                continue
            results.write(drawn.found.to_coco(each.image_id, ids.categories))
            report.add(each, drawn)
            if isinstance(each.picture, Frame) and drawn.frame is not None:
                videos.write(each.picture, drawn.frame)
        report.check(len(paths))
        results.end()
    report.write(folder, ids, results.count)
    return Written(len(report.images), results.count, len(report.skipped))


def _detect(
    detector: Detector, paths: Sequence[Path], ids: Iterable[int | str], total: int
) -> Iterator[_Found]:
    """Yield what is found in each picture, behind a progress bar."""
    stream = detector.detect(paths, keep_pixels=True)
    bar = tqdm(stream, total=total, unit="picture", desc="detecting")
    for number, (image_id, (picture, found)) in enumerate(zip(ids, bar, strict=False)):
        yield _Found(number, image_id, picture, found)


def _draw(each: _Found, *, report: "_Report", save: Save | None) -> _Drawn | BrokenImage:
    """Draw a picture for the page, and in full for its file or its video."""
    if isinstance(each.found, BrokenImage):
        return each.found
    shown = report.shown(each.found)
    drawn = _Drawn(each.found, shown)
    if report.has_on_page(each.number):
        small = np.asarray(shown.thumbnail(_THUMBNAIL_SIDE))
        drawn = drawn._replace(thumbnail=data_uri(encode_jpeg(small)))
    if save and shown.frame is not None:
        drawn = drawn._replace(frame=np.asarray(shown.draw()))
    elif save:
        save(_picture_name(each.number, shown.file_name), shown.draw())
    return drawn


class _ListWriter:
    """Writes a JSON list with an entry per line, and counts the entries."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.count = 0

    def write(self, entries: Sequence[dict[str, Any]]) -> None:
        for entry in entries:
            self._file.write((",\n" if self.count else "[\n") + json.dumps(entry))
            self.count += 1

    def end(self) -> None:
        self._file.write("\n]\n" if self.count else "[]\n")


class _Videos:
    """Writes drawn frames into the video of their name, one video after another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = contextlib.ExitStack()
        self._video = ""
        self._writer: VideoWriter | None = None

    def __enter__(self) -> "_Videos":
        self._open.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def write(self, frame: Frame, pixels: np.ndarray) -> None:
        if frame.video != self._video or self._writer is None:
            self._open.close()  # the one before is whole
            path = self._folder / f"{_file_stem(frame.video)}.mp4"
            self._writer = self._open.enter_context(
                writing_video(path, read_head(frame.video).rate)
            )
            self._video = frame.video
        self._writer.write(pixels, frame.seconds)


class _Report:
    """Collects what the page, the counts and the meaning of ids need of each picture."""

    def __init__(self, detector: Detector, total: int) -> None:
        self._detector = detector
        self._every = -(-total // _MOST_SHOWN)
        self._counts: list[tuple[str, dict[str, int]]] = []
        self._figures: list[dict[str, Any]] = []
        self.images: list[dict[str, Any]] = []
        self.skipped: list[str] = []

    def has_on_page(self, number: int) -> bool:
        """Return whether the page shows a picture: each, or one of every few."""
        return number % self._every == 0

    def shown(self, found: ImageDetections) -> ImageDetections:
        """Return what is drawn and counted of the detections in a picture."""
        return self._detector.selection.of(found, otherwise=DRAWN_FROM)

    def skip(self, picture: Picture, error: BrokenImage) -> None:
        why = in_one_line(picture, error)
        warn_of_broken(why)
        self.skipped.append(why)

    def add(self, each: _Found, drawn: _Drawn) -> None:
        entry = _image_entry(each.image_id, drawn.shown)
        if isinstance(each.picture, Frame):
            entry |= {"frame": each.picture.number, "seconds": each.picture.seconds}
        name = _name(drawn.shown)
        counts = drawn.shown.count()
        self.images.append(entry)
        self._counts.append((name, counts))
        if drawn.thumbnail and len(self._figures) < 2 * _MOST_SHOWN:
            self._figures.append({"name": name, "counts": counts, "picture": drawn.thumbnail})

    def check(self, files: int) -> None:
        """Refuse files of which none could be read."""
        if not self.images:
            raise UserError(
                f"{files} of {files} files cannot be read as images; the reasons are above."
            )

    def write(self, folder: Path, ids: Ids, detections: int) -> None:
        categories = _category_entries(self._detector, ids)
        meaning = {"images": self.images, "categories": categories}
        write_atomically(folder / IMAGES, json.dumps(meaning, indent=1))
        found = sum((Counter(counts) for _, counts in self._counts), Counter[str]())
        write_atomically(folder / COUNTS, self._table([entry["name"] for entry in categories]))
        write_page(
            folder / PAGE,
            "detections.html.j2",
            self._facts(),
            figures=self._figures,
            every=self._every,
            pictures=len(self.images),
            detections=detections,
            counts=found.most_common(),
            in_pictures=Counter(name for _, counts in self._counts for name in counts),
            skipped=self.skipped[:_SKIPPED_SHOWN],
            skips=len(self.skipped),
        )

    def _table(self, names: Sequence[str]) -> str:
        """Return the counts as CSV: a row for each picture, a column for each class found."""
        found = {name for _, counts in self._counts for name in counts}
        columns = [name for name in names if name in found]
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["picture", "objects", *map(in_csv, columns)])
        for name, counts in self._counts:
            of_classes = [counts.get(column, 0) for column in columns]
            rows.writerow([in_csv(name), sum(counts.values()), *of_classes])
        return text.getvalue()

    def _facts(self) -> dict[str, str]:
        detector, report = self._detector, self._detector.report
        cfg = detector.cfg
        facts = {
            "Model": f"{cfg.MODEL.META_ARCHITECTURE}, {number_of_classes(detector)} classes",
            "Weights": f"{shown_path(report.path)} (sha256 {report.sha256[:12]})" if report else "",
            "Shown and counted": f"score from {detector.selection.in_words(DRAWN_FROM)}",
            "Images": f"shorter side resized to {cfg.INPUT.MIN_SIZE_TEST} px, at most "
            f"{cfg.INPUT.MAX_SIZE_TEST} px long",
        }
        if detector.tiling:
            side, overlap = detector.tiling
            facts["Tiles"] = f"{side} px, overlap {overlap} px, and the whole picture"
        if cfg.TEST.AUG.ENABLED:
            flips = " and mirrored" if cfg.TEST.AUG.FLIP else ""
            sizes = ", ".join(map(str, cfg.TEST.AUG.MIN_SIZES))
            facts["Images"] = f"shorter side resized to {sizes} px{flips}, results joined"
        return facts


def _name(found: ImageDetections) -> str:
    name = printable(found.file_name)
    return name if found.frame is None else f"{name}, frame {found.frame}"


def _image_entry(number: int | str, found: ImageDetections) -> dict[str, Any]:
    height, width = found.image_size
    return {"id": number, "file_name": found.file_name, "width": width, "height": height}


def _category_entries(detector: Detector, ids: Ids) -> list[dict[str, Any]]:
    names = detector.classes or [str(number) for number in range(len(ids.categories))]
    named = zip(ids.categories, names, strict=True)
    return [{"id": number, "name": name} for number, name in named]


def _picture_name(number: int, file_name: str) -> str:
    """Return a name that no other picture has, and no path or terminal takes for anything else."""
    return f"{number + 1:06d}_{_file_stem(file_name)}.jpg"


def _file_stem(file_name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", Path(file_name).stem)[:100]
