"""What a detector finds in many pictures, as files: COCO's results, and the pictures drawn upon."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tqdm import tqdm

from virtex_det.data.classes import model_classes
from virtex_det.data.datasets.annotation_content import read_annotations
from virtex_det.data.datasets.ids import check_coco_ids
from virtex_det.errors import UserError
from virtex_det.inference.detector import Detector
from virtex_det.inference.image_detections import ImageDetections
from virtex_det.inference.picture_folder import drawing_into
from virtex_det.utils import replacing, write_atomically

DETECTIONS = "detections.json"
IMAGES = "images.json"
PICTURES = "pictures"
DRAWN_FROM = 0.5  # score of the detections that are drawn where nobody asks for another


class Ids(NamedTuple):
    """The ids that images and categories have in a results file.

    Attributes:
        images: of each picture, in the order of the pictures.
        categories: of each class of the detector, by its number.
    """

    images: Sequence[int | str]
    categories: Sequence[int]


class Written(NamedTuple):
    """How many pictures and detections were written, and how many pictures were left out."""

    pictures: int
    detections: int
    skipped: int


def own_ids(detector: Detector, paths: Sequence[Path]) -> Ids:
    """Return ids for pictures that no annotation file names: 1, 2, 3 and so on.

    Categories have the ids of the detector's data set; where that is not registered here, class 0
    has the id 1, class 1 the id 2, and so on.
    """
    metadata = detector.predictor.metadata
    numbers: Mapping[int, int] = metadata.get("thing_dataset_id_to_contiguous_id", {})
    of_class = {number: category for category, number in numbers.items()}
    count = _number_of_classes(detector)
    categories = [of_class.get(number, number + 1) for number in range(count)]
    return Ids(range(1, len(paths) + 1), categories)


def ids_of_file(detector: Detector, paths: Sequence[Path], annotations: str | Path) -> Ids:
    """Return the ids of pictures and categories in an annotation file of COCO's or LVIS's form.

    A picture is found by the end of its path, a class by its name.

    Raises:
        UserError: the file cannot be read, or does not name a picture or a class of the detector.
    """
    content = read_annotations(annotations, "an annotation file in COCO's form")
    check_coco_ids(content, str(annotations))
    images = {_file_name(entry): entry["id"] for entry in content.get("images", [])}
    found = [_id_of(path, images) for path in paths]
    strange = [path for path, number in zip(paths, found, strict=True) if number is None]
    if strange:
        raise UserError(
            f"{len(strange)} of {len(paths)} pictures are not in {annotations}, "
            f"e.g. {strange[0]}.\nIts images have names such as {', '.join(list(images)[:3])}."
        )
    categories = {str(entry.get("name")): entry["id"] for entry in content.get("categories", [])}
    unknown = [name for name in detector.classes if name not in categories]
    if unknown or not detector.classes:
        what = (
            f"The detector's class {unknown[0]} is not a category of"
            if unknown
            else "The detector's classes have no names to compare with the categories of"
        )
        raise UserError(
            f"{what} {annotations}, which has {', '.join(categories):.200}.\n"
            "Leave --annotations out: the ids are then written beside the detections."
        )
    image_ids = [number for number in found if number is not None]
    return Ids(image_ids, [categories[name] for name in detector.classes])


def write_detections(
    folder: str | Path,
    detector: Detector,
    paths: Sequence[Path],
    ids: Ids,
    *,
    threshold: float | None = None,
    draw: bool = True,
) -> Written:
    """Write what a detector finds in image files, behind a progress bar.

    ``detections.json`` is a results file in COCO's form. ``images.json`` says which images and
    categories its ids mean, as the annotation files of COCO do. ``pictures/`` has each picture with
    its detections, in place of those of an earlier call. Each file is written whole or not at all.
    Work goes picture by picture, so memory does not grow with their number. Files that cannot be
    read are logged.

    Args:
        folder: made where it is not there.
        detector: finds.
        paths: of the pictures.
        ids: of pictures and classes.
        threshold: least score of what is written and drawn; None writes all, and draws from
            DRAWN_FROM on.
        draw: write ``pictures/``.

    Raises:
        UserError: none of the files can be read.
    """
    folder = Path(folder)
    drawn_from = DRAWN_FROM if threshold is None else threshold
    images: list[dict[str, Any]] = []
    with (
        drawing_into(folder / PICTURES, paths) as save,
        replacing(folder / DETECTIONS) as part,
        part.open("w", encoding="utf-8") as file,
    ):
        writer = _ListWriter(file)
        for number, found in _detect(detector, paths):
            kept = found if threshold is None else found[found.scores >= threshold]
            writer.write(kept.to_coco(ids.images[number], ids.categories))
            images.append(_image_entry(ids.images[number], found))
            if draw:
                drawn = found[found.scores >= drawn_from]
                save(_picture_name(number, found.file_name), drawn.draw())
        if not images:
            raise UserError(
                f"{len(paths)} of {len(paths)} files cannot be read as images; the reasons are "
                "above."
            )
        writer.end()
    meaning = {"images": images, "categories": _category_entries(detector, ids)}
    write_atomically(folder / IMAGES, json.dumps(meaning, indent=1))
    return Written(len(images), writer.count, len(paths) - len(images))


def _detect(detector: Detector, paths: Sequence[Path]) -> Iterator[tuple[int, ImageDetections]]:
    """Yield number and detections of each readable picture, behind a progress bar."""
    numbers = {str(path): number for number, path in enumerate(paths)}
    stream = detector.stream(list(paths), skip_broken=True)
    for found in tqdm(stream, total=len(paths), unit="picture", desc="detecting"):
        yield numbers[found.file_name], found


def _number_of_classes(detector: Detector) -> int:
    classes = model_classes(detector.cfg)
    return len(detector.classes) or (classes.number if classes else 0)


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


def _image_entry(number: int | str, found: ImageDetections) -> dict[str, Any]:
    height, width = found.image_size
    return {"id": number, "file_name": found.file_name, "width": width, "height": height}


def _category_entries(detector: Detector, ids: Ids) -> list[dict[str, Any]]:
    names = detector.classes or [str(number) for number in range(len(ids.categories))]
    named = zip(ids.categories, names, strict=True)
    return [{"id": number, "name": name} for number, name in named]


def _picture_name(number: int, file_name: str) -> str:
    """Return a name that no other picture has, and no path or terminal takes for anything else."""
    stem = re.sub(r"[^\w.-]+", "_", Path(file_name).stem)[:100]
    return f"{number + 1:06d}_{stem}.jpg"


def _file_name(entry: Mapping[str, Any]) -> str:
    """Return an image's name; LVIS gives an address instead, which ends in split and file."""
    return str(entry.get("file_name") or "/".join(str(entry.get("coco_url", "")).split("/")[-2:]))


def _id_of(path: Path, images: Mapping[str, int | str]) -> int | str | None:
    """Return the id of the image with the longest name that the path ends in; None without one."""
    parts = path.absolute().parts
    for length in range(len(parts), 0, -1):
        name = "/".join(parts[-length:])
        if name in images:
            return images[name]
    return None
