"""Reader of own data in VOC's format: a folder with image sets, or XML files near their images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from virtex_det.data.datasets.folders import find_files
from virtex_det.data.datasets.found import DIFFICULT, Found, image_sizes, some
from virtex_det.data.datasets.objects import check_made_boxes
from virtex_det.data.datasets.subsets import is_in_fraction
from virtex_det.data.datasets.voc import (
    VOCImage,
    find_annotations,
    image_set_file,
    read_voc_image,
)
from virtex_det.errors import UserError
from virtex_det.image_files import IMAGE_SUFFIXES
from virtex_det.utils import map_in_threads

_SPLITS = ("train", "val", "all")
_THREADS = 8


class _Pair(NamedTuple):
    """An XML file, and where its image is or should be."""

    name: str  # of the image, without suffix
    annotation: Path
    image: Path


def read_voc(folder: Path, split: str, share: float | None = None) -> Found:
    """Read a split of a data set in VOC's format.

    The classes are the names of all objects in the folder, of all splits, in alphabetical order.

    Args:
        folder: with ``Annotations``, ``JPEGImages`` and ``ImageSets/Main``; or any folder, searched
            recursively for XML files and for images of the same names.
        split: an image set; in a folder without these "train", "val" or "all".
        share: of the images that are "val", chosen by their names; for folders without image sets.

    Returns:
        Images named as in VOC's image sets. Boxes start at 0, as Detectron2 reads VOC: one pixel is
        taken from xmin and ymin.

    Raises:
        UserError: a file is missing or invalid; names file and object.
    """
    files = _files(folder, split, share)
    read = _read_all([*(pair.annotation for pair in files.pairs), *files.others])
    classes = sorted({found.name for image in read.values() for found in image.objects})
    if not classes:
        raise UserError(f"{folder}: none of {len(read)} XML files has an <object>.")
    _check_classes(folder, classes)
    content = _content(folder, files.pairs, read, classes)
    names = {number: pair.name for number, pair in enumerate(files.pairs, start=1)}
    return Found(content, str(folder), names, tuple(_notes_of(files, read)))


class _Files(NamedTuple):
    """The files of a split, the XML files of the other splits, and the images without XML."""

    pairs: list[_Pair]
    others: list[Path]
    alone: list[Path]


def _files(folder: Path, split: str, share: float | None) -> _Files:
    if (folder / "ImageSets" / "Main").is_dir():
        if share is not None:
            raise UserError(
                f"{folder} has image sets, which say what belongs to {split}. Leave out the share."
            )
        return _files_of_image_set(folder, split)
    annotations = find_files(folder, (".xml",))
    if not annotations:
        raise UserError(f"{folder} has no ImageSets/Main, and no XML files.\n{_FORM}")
    if split not in _SPLITS or (share is None) != (split == "all"):
        raise UserError(
            f"{folder} has no ImageSets/Main, but {len(annotations)} XML files: say how many of "
            f"the images are for validation.\n{_FORM}"
        )
    pairs = _near(folder, annotations)
    alone = set(find_files(folder, IMAGE_SUFFIXES)).difference(pair.image for pair in pairs)
    if share is not None:
        wanted = split == "val"
        pairs = [pair for pair in pairs if is_in_fraction(pair.name, share) == wanted]
        if not pairs:
            raise UserError(
                f"{folder}: with a share of {share:g} none of {len(annotations)} images is in "
                f"{split}. Choose another share."
            )
    chosen = {pair.annotation for pair in pairs}
    others = [path for path in annotations if path not in chosen]
    return _Files(pairs, others, sorted(alone))


_FORM = """Expected voc:FOLDER:SPLIT with FOLDER/ImageSets/Main/SPLIT.txt, or for XML near images:
  voc:FOLDER:train:0.2  all but a fifth
  voc:FOLDER:val:0.2    that fifth, chosen by the names of the images
  voc:FOLDER:all"""


def _files_of_image_set(folder: Path, split: str) -> _Files:
    path = image_set_file(folder, split)
    if not path.is_file():
        known = sorted(found.stem for found in path.parent.glob("*.txt") if "_" not in found.stem)
        raise UserError(
            f"{path} does not exist; the image sets of {folder} are: {some(known, 10) or 'none'}."
        )
    annotations = find_annotations(folder, split)
    images = _by_stem(folder / "JPEGImages")
    pairs = []
    for name, annotation in annotations.items():
        missing = folder / "JPEGImages" / f"{name}.jpg"
        pairs.append(_Pair(name, annotation, images.get(name, missing)))
    chosen = set(annotations.values())
    everything = find_files(folder / "Annotations", (".xml",))
    return _Files(pairs, [found for found in everything if found not in chosen], [])


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return the images in a folder by their names without suffix."""
    found: dict[str, Path] = {}
    for path in find_files(folder, IMAGE_SUFFIXES) if folder.is_dir() else ():
        if found.setdefault(path.stem, path) != path:
            raise UserError(
                f"{found[path.stem]} and {path} would share one XML file. Remove or rename one."
            )
    return found


def _near(folder: Path, annotations: Sequence[Path]) -> list[_Pair]:
    """Return each XML file with the image of its name: beside it, or the only one in the folder."""
    beside: dict[tuple[Path, str], Path] = {}
    anywhere: dict[str, list[Path]] = {}
    for image in find_files(folder, IMAGE_SUFFIXES):
        key = image.parent, image.stem
        if beside.setdefault(key, image) != image:
            raise UserError(
                f"{beside[key]} and {image.name} would share one XML file. Remove or rename one."
            )
        anywhere.setdefault(image.stem, []).append(image)
    stems = Counter(path.stem for path in annotations)
    pairs = []
    for path in annotations:
        images = anywhere.get(path.stem, [])
        found = beside.get((path.parent, path.stem))
        if found is None and len(images) > 1:
            raise UserError(
                f"{path} has no image beside it, and {folder} has {len(images)} of its name: "
                f"{some(images)}.\nPut each XML file beside its image."
            )
        is_unique = stems[path.stem] == 1
        name = path.stem if is_unique else path.relative_to(folder).with_suffix("").as_posix()
        missing = path.with_suffix(".jpg")
        pairs.append(_Pair(name, path, found or (images[0] if images else missing)))
    return pairs


def _read_all(paths: Sequence[Path]) -> dict[Path, VOCImage]:
    with tqdm(desc="XML files", total=len(paths), leave=False, delay=2, unit="file") as bar:
        found = map_in_threads(_read, paths, _THREADS, on_done=bar.update)
    return dict(zip(paths, found, strict=True))


def _read(path: Path) -> VOCImage:
    return read_voc_image(path, needs_size=False)


def _check_classes(folder: Path, classes: Sequence[str]) -> None:
    """Refuse names that differ only in case or in spaces: one class in two spellings."""
    spellings: dict[str, str] = {}
    for name in classes:
        plain = name.strip().casefold()
        if plain in spellings:
            raise UserError(
                f"{folder} has the classes {spellings[plain]!r} and {name!r}: one class in two "
                "spellings. Write it in one way."
            )
        spellings[plain] = name


def _notes_of(files: _Files, read: Mapping[Path, VOCImage]) -> list[str]:
    images = {pair.annotation: read[pair.annotation] for pair in files.pairs}
    difficult = sum(found.difficult for image in images.values() for found in image.objects)
    unsized = [path for path, image in images.items() if not image.height]
    notes = []
    if difficult:
        notes.append(
            f"{difficult} objects are difficult: they are trained on, and in evaluation they "
            "count neither as missed nor as found"
        )
    if unsized:
        notes.append(
            f"{len(unsized)} XML files have no <size>, e.g. {unsized[0]}: it is read from the image"
        )
    if files.alone:
        notes.append(
            f"{len(files.alone)} images have no XML file and are left out, e.g. {files.alone[0]}"
        )
    return notes


def _content(
    folder: Path,
    pairs: Sequence[_Pair],
    read: Mapping[Path, VOCImage],
    classes: Sequence[str],
) -> dict[str, Any]:
    numbers = {name: number for number, name in enumerate(classes)}  # as VOC's evaluators have them
    unsized = [pair.image for pair in pairs if not read[pair.annotation].height]
    sizes = dict(zip(unsized, image_sizes(unsized, "sizes")[0], strict=True))
    images, places = [], []
    objects: list[dict[str, Any]] = []
    for number, pair in enumerate(pairs, start=1):
        found = read[pair.annotation]
        size = (found.height, found.width) if found.height else sizes[pair.image]
        if size is None:
            raise UserError(
                f"{pair.annotation} has no <size>, and its image {pair.image} cannot be read.\n"
                "Write width and height into the file, or complete the image."
            )
        images.append(
            {
                "id": number,
                "file_name": pair.image.relative_to(folder).as_posix(),
                "height": size[0],
                "width": size[1],
            }
        )
        for place, entry in enumerate(found.objects, start=1):
            left, top, right, bottom = entry.box
            box = [left - 1, top - 1, right - (left - 1), bottom - (top - 1)]
            made = {
                "id": len(objects) + 1,
                "image_id": number,
                "category_id": numbers[entry.name],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            objects.append(made | ({DIFFICULT: 1} if entry.difficult else {}))
            places.append(f"{pair.annotation}: object {place} ({entry.name[:40]})")
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    content = {"images": images, "annotations": objects, "categories": categories}
    check_made_boxes(content, places, str(folder))
    return content
