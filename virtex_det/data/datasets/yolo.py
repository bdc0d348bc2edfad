"""Reader of YOLO's format as Ultralytics has it: a data.yaml, images, and a text file of each.

The rules are those of Ultralytics' documentation: a label lies where its image does, with the last
"images" of the path replaced by "labels", or beside the image. A line is a class and the box's
centre and size, or a class and the points of a polygon, as fractions of the image.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from virtex_det.data.datasets.folders import find_files
from virtex_det.data.datasets.found import Found, image_sizes, polygon_area, some
from virtex_det.data.datasets.ids import is_name, parse_id
from virtex_det.data.datasets.objects import check_made_boxes
from virtex_det.errors import UserError
from virtex_det.image_files import IMAGE_SUFFIXES
from virtex_det.text_files import read_text, split_lines
from virtex_det.utils import map_in_threads
from virtex_det.yaml_files import read_yaml, shortened

_YAML = (".yaml", ".yml")
# Text files that tools leave among labels.
_NO_LABELS = ("classes.txt", "labels.txt", "obj.txt", "train.txt", "val.txt", "test.txt")
_ALIASES = {"val": ("valid", "validation"), "valid": ("val",), "validation": ("val",)}
_FEW = 0.1  # labels without an image, as a share of the images, that are only counted
_ROUNDING = 0.001  # how far beyond 0 and 1 a coordinate may lie without a word
_PIXELS = 1.5  # coordinates beyond it are taken for pixels where there are many
_THREADS = 8


class Settings(NamedTuple):
    """The content of a data.yaml.

    Attributes:
        file: its path.
        root: folder to which paths are relative.
        names: of the classes, by the number that labels use, ascending; gaps are allowed.
        splits: what it says of each split.
        keypoints: numbers of a line that belong to keypoints.
        notes: what was noticed.
    """

    file: Path
    root: Path
    names: dict[int, str]
    splits: dict[str, Any]
    keypoints: int
    notes: tuple[str, ...]


class Line(NamedTuple):
    """One object of a label file, in fractions of the image."""

    place: str  # "FILE, line N"
    category: int
    numbers: tuple[float, ...]  # a box (centre, size), or the points of a polygon

    @property
    def is_polygon(self) -> bool:
        """Whether the object has a mask."""
        return len(self.numbers) > 4


def read_yolo(file: Path, split: str) -> Found:
    """Read a split of a data set in YOLO's format.

    Args:
        file: the data.yaml, or the folder that has one.
        split: name of one of its splits, such as "train".

    Returns:
        Images named by their path relative to the root of the data set, in that order. Boxes of
        polygons enclose them.

    Raises:
        UserError: a file is missing or invalid; names file and line.
    """
    settings = read_settings(file)
    images, notes = _images_of(settings, split)
    labels, label_notes = _labels_of(images)
    lines = _read_labels(settings, images, labels)
    sizes, faults = image_sizes(images, f"sizes of {split}")
    if len(faults) == len(images):
        raise UserError(f"{settings.file}: no image of {split} can be read, e.g. {faults[0]}.")
    if faults:
        notes.append(
            f"{len(faults)} of {len(images)} images cannot be read, e.g. {faults[0]}: they count "
            "as images without objects, and training leaves them out"
        )
    content, object_notes = _content(settings, images, lines, sizes)
    empty = sum(not found for found in lines)
    if empty:
        notes.append(f"{empty} of {len(images)} images have no object: no label, or an empty one")
    told = (*settings.notes, *notes, *label_notes, *object_notes)
    names = {image["id"]: image["file_name"] for image in content["images"]}
    return Found(content, str(settings.root), names, told)


def read_settings(file: Path) -> Settings:
    """Read a data.yaml, given as the file or as the folder that has it.

    Raises:
        UserError: there is no such file, or it is invalid.
    """
    file = _find_yaml(file)
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise UserError(f"{file} holds {shortened(content)}; expected names and splits.\n{_FORM}")
    names = _names(file, content)
    splits = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and key not in _NO_SPLITS
    }
    root, notes = _root(file, content, splits)
    return Settings(file, root, names, splits, _keypoints(file, content), tuple(notes))


_FORM = """Expected, as Ultralytics has it:
  path: FOLDER         # of the data set; relative to this file
  train: images/train  # folders of images, or lists of them (.txt)
  val: images/val
  names: {0: person, 1: dog}"""
_NO_SPLITS = ("path", "names", "download", "nc", "format", "kpt_shape", "flip_idx", "yaml_file")


def _find_yaml(file: Path) -> Path:
    if not file.is_dir():
        return file
    for name in ("data.yaml", "data.yml", "dataset.yaml"):
        if (file / name).is_file():
            return file / name
    found = sorted(path for path in file.iterdir() if path.suffix.lower() in _YAML)
    if len(found) != 1:
        state = f"{len(found)} YAML files ({some(found)})" if found else "no data.yaml"
        raise UserError(f"{file} has {state}. Name the file itself: yolo:FOLDER/data.yaml:SPLIT.")
    return found[0]


def _names(file: Path, content: Mapping[str, Any]) -> dict[int, str]:
    names, number = content.get("names"), content.get("nc")
    if names is None and type(number) is int and 0 < number <= 10_000:
        names = [f"class_{place}" for place in range(number)]  # as Ultralytics calls them
    if isinstance(names, list):
        names = dict(enumerate(names)) or []
    if not isinstance(names, dict) or not names:
        raise UserError(f"{file} has names {shortened(names)}; expected names of classes.\n{_FORM}")
    found = {_class_id(file, key): _class_name(file, key, name) for key, name in names.items()}
    if len(found) < len(names):
        raise UserError(
            f"{file}: names has one class number twice, once as text. Name each number once."
        )
    if type(number) is int and number not in (len(found), max(found) + 1):
        raise UserError(
            f"{file} has nc {number}, but names {len(found)} classes, {min(found)} to "
            f"{max(found)}.\nCorrect one of them; nc may be left out."
        )
    return dict(sorted(found.items()))


def _class_id(file: Path, key: Any) -> int:
    number = parse_id(key) if isinstance(key, str) else key
    if type(number) is not int or number < 0:
        raise UserError(
            f"{file}: names has the key {shortened(key)}; expected the number of a class, as it "
            "is in the label files."
        )
    return number


def _class_name(file: Path, key: Any, name: Any) -> str:
    if isinstance(name, bool) or name is None:
        raise UserError(
            f"{file}: the name of class {key} is {name!r}: YAML reads yes, no, on, off, true, "
            'false and null so. Write it in quotes: "no".'
        )
    text = str(name) if isinstance(name, int | float) else name
    if not is_name(text):
        raise UserError(f"{file}: the name of class {key} is {name!r:.80}; expected text.")
    return text.strip()


def _keypoints(file: Path, content: Mapping[str, Any]) -> int:
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(n) is int for n in shape):
        raise UserError(f"{file} has kpt_shape {shortened(shape)}; expected two whole numbers.")
    return int(shape[0] * shape[1])


def _root(
    file: Path, content: Mapping[str, Any], splits: Mapping[str, Any]
) -> tuple[Path, list[str]]:
    """Return the folder that paths are relative to, and what was noticed."""
    own = file.parent
    path = content.get("path")
    if path is None or path == "":
        return own, []
    if not isinstance(path, str):
        raise UserError(f"{file} has path {shortened(path)}; expected the name of a folder.")
    given = own / Path(path).expanduser()  # an absolute path stays as it is
    if given.is_dir():
        return given, []
    if any((own / first).exists() for value in splits.values() for first in _listed(value)[:1]):
        # Written on another machine, or relative to Ultralytics' folder of data sets.
        return own, [f"{file}: its path {path} does not exist here; the file's folder is used"]
    raise UserError(
        f"{file} has path {path}, but there is no folder {given}, and its splits are not in "
        f"{own} either.\nCorrect path; it is relative to the file."
    )


def _listed(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str)]


def _images_of(settings: Settings, split: str) -> tuple[list[Path], list[str]]:
    """Return the images of a split in the order of their paths, and what was noticed."""
    file = settings.file
    if split not in settings.splits:
        named = [name for name, found in settings.splits.items() if isinstance(found, str | list)]
        known = ", ".join(named) or "none"
        near = [name for name in _ALIASES.get(split, ()) if name in named]
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"{file} has no split {split!r}; it has {known}.{hint}\n{_FORM}")
    value = settings.splits[split]
    places = _listed(value)
    if not value or not places or (isinstance(value, list) and len(places) < len(value)):
        raise UserError(
            f"{file}: {split} is {shortened(value)}; expected folders or lists.\n{_FORM}"
        )
    found: list[Path] = []
    for place in places:
        path = _existing(settings, split, place)
        found += find_files(path, IMAGE_SUFFIXES) if path.is_dir() else _from_list(settings, path)
    unique = sorted({os.path.abspath(path) for path in found})  # noqa: PTH100  (keeps links)
    if not unique:
        raise UserError(
            f"{file}: {split} has no image in {some(places)}; expected files that end in "
            f"{', '.join(IMAGE_SUFFIXES)}."
        )
    twice = len(found) - len(unique)
    notes = (
        [f"{twice} images are listed more than once in {split}, and count once"] if twice else []
    )
    return [Path(path) for path in unique], notes


def _existing(settings: Settings, split: str, place: str) -> Path:
    """Return the folder or list that a split names; Roboflow writes ../ too much."""
    tried = [settings.root / Path(place).expanduser()]
    if place.startswith("../"):
        tried.append(settings.root / place.removeprefix("../"))
    path = next((path for path in tried if path.is_dir() or path.is_file()), None)
    if path is None:
        raise UserError(
            f"{settings.file}: {split} is {place}, but there is no "
            f"{' and no '.join(map(str, tried))}.\n"
            "Correct it; it is relative to the path of the data set."
        )
    if path.is_file() and path.suffix.lower() != ".txt":
        raise UserError(
            f"{settings.file}: {split} names the file {path}; expected a folder of images, or a "
            ".txt with the path of an image on each line."
        )
    return path


def _from_list(settings: Settings, file: Path) -> list[Path]:
    """Return the images that a text file lists, relative to the file or to the data set's root."""
    names = [
        line.strip() for line in split_lines(read_text(file, "a list of images")) if line.strip()
    ]
    found = []
    for name in names:
        if "://" in name:
            raise UserError(f"{file} lists the address {name:.200}; images are never fetched.")
        tried = [file.parent / name, settings.root / name]
        found.append(next((path for path in tried if path.exists()), tried[-1]))
    missing = [path for path in found if not path.is_file()]
    if missing:
        raise UserError(
            f"{file} lists {len(names)} images, of which {len(missing)} have no file, e.g. "
            f"{missing[0]}.\nPaths are relative to the list or to {settings.root}: complete the "
            "images, or correct the list."
        )
    return found


def _labels_of(images: Sequence[Path]) -> tuple[list[Path | None], list[str]]:
    """Return the label file of each image, None for none, and what was noticed."""
    folders = {image.parent for image in images}
    beside = {folder: _texts_in(folder) for folder in folders}
    apart = {folder: _texts_in(_label_folder(folder)) for folder in folders}
    labels: list[Path | None] = []
    owners: dict[Path, Path] = {}
    for image in images:
        found = [of[image.parent].get(image.stem) for of in (apart, beside)]
        paths = [path for path in dict.fromkeys(found) if path is not None]
        if len(paths) > 1 and paths[0].read_bytes() != paths[1].read_bytes():
            raise UserError(
                f"{image} has two label files that differ: {paths[0]} and {paths[1]}.\n"
                "Remove one of them."
            )
        if paths and owners.setdefault(paths[0], image) != image:
            raise UserError(
                f"{owners[paths[0]]} and {image.name} would share the label {paths[0]}.\n"
                "Remove or rename one of the images."
            )
        labels.append(paths[0] if paths else None)
    if not any(labels):
        where = _label_folder(images[0].parent) / f"{images[0].stem}.txt"
        raise UserError(
            f"None of {len(images)} images has a label file; expected for {images[0]} the file "
            f"{where}.\n"
            "Put the labels there. To use images without labels, name them folder:IMAGES."
        )
    return labels, _orphans(folders, apart, len(images))


def _label_folder(folder: Path) -> Path:
    """Return the folder of the labels of a folder's images."""
    parts = list(folder.parts)
    for place in reversed(range(len(parts))):
        if parts[place] == "images":
            return Path(*parts[:place], "labels", *parts[place + 1 :])
    return folder


def _texts_in(folder: Path) -> dict[str, Path]:
    """Return the label files in a folder by stem."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.[tT][xX][tT]")) if folder.is_dir() else ():
        if path.name.lower() in _NO_LABELS or path.name.startswith("."):
            continue
        if path.stem in found:
            raise UserError(
                f"{path} and {found[path.stem].name} are label files of one image. Remove one."
            )
        found[path.stem] = path
    return found


def _stems_of_images(folder: Path) -> set[str]:
    """Return the names, without suffix, of the images in a folder; other files are none."""
    with os.scandir(folder) as entries:
        paths = [Path(entry.name) for entry in entries if entry.is_file()]
    return {path.stem for path in paths if path.suffix.lower() in IMAGE_SUFFIXES}


def _orphans(
    folders: set[Path], apart: Mapping[Path, Mapping[str, Path]], number: int
) -> list[str]:
    """Count labels without an image; many are an error, as images are missing."""
    lost = []
    for folder in sorted(folders):
        stems = _stems_of_images(folder)
        lost += [path for stem, path in apart[folder].items() if stem not in stems]
    lost = [path for path in lost if _looks_like_labels(path)]
    if not lost:
        return []
    what = f"{len(lost)} label files have no image (of {number} images), e.g. {lost[0]}"
    if len(lost) > _FEW * number:
        raise UserError(
            f"{what}.\nComplete the images ({', '.join(IMAGE_SUFFIXES)}), or remove these labels."
        )
    return [f"{what}; they are left out"]


def _looks_like_labels(path: Path) -> bool:
    words = path.read_bytes()[:200].split()
    return len(words) >= 5 and all(word.replace(b".", b"", 1).isdigit() for word in words[:4])


def _read_labels(
    settings: Settings, images: Sequence[Path], labels: Sequence[Path | None]
) -> list[list[Line]]:
    """Return the objects of each image."""

    def read(label: Path | None) -> list[Line]:
        return [] if label is None else list(_lines(settings, label))

    with tqdm(desc="labels", total=len(images), leave=False, delay=2, unit="file") as bar:
        found = map_in_threads(read, labels, _THREADS, on_done=bar.update)
    _check_names(settings, found)
    return found


def _lines(settings: Settings, label: Path) -> Iterator[Line]:
    for number, text in enumerate(split_lines(read_text(label, "labels of an image")), start=1):
        if words := text.split():
            place = f"{label}, line {number}"
            yield _line(place, words, settings.keypoints)


def _line(place: str, words: Sequence[str], keypoints: int) -> Line:
    numbers = _numbers(words)
    if not numbers:
        text = "".join(words)
        advice = " Separate them by spaces." if "," in text else ""
        if not text.isascii():
            advice += " Write numbers in the digits 0 to 9."
        raise UserError(
            f"{place} is {' '.join(words)!r:.80}; expected a class and numbers.{advice}"
        )
    if keypoints and len(numbers) == 5 + keypoints:
        numbers = numbers[:5]
    category = numbers[0]
    if category != int(category) or category < 0:
        raise UserError(f"{place} has the class {words[0]}; expected a whole number from 0 on.")
    if len(numbers) == 6:
        raise UserError(
            f"{place} has six numbers, a box with a score: the file holds detections (save_conf), "
            "not labels.\nName the labels that people made, or remove the last number."
        )
    if len(numbers) != 5 and (len(numbers) < 7 or len(numbers) % 2 == 0):
        raise UserError(
            f"{place} has {len(numbers)} numbers; expected 5 (class, centre, size), or a class "
            "and x y of three points or more."
        )
    return Line(place, int(category), numbers[1:])


def _numbers(words: Sequence[str]) -> tuple[float, ...]:
    """Return finite numbers in ASCII, () for other words; float() reads "1_0" and "１", too."""
    if not all(word.isascii() and "_" not in word for word in words):
        return ()
    try:
        numbers = tuple(map(float, words))
    except ValueError:
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


def _check_names(settings: Settings, lines: Sequence[Sequence[Line]]) -> None:
    unknown = [line for found in lines for line in found if line.category not in settings.names]
    if not unknown:
        return
    ids, wrong = list(settings.names), sorted({line.category for line in unknown})
    off = " The labels seem to count classes from 1." if wrong == [ids[-1] + 1] else ""
    raise UserError(
        f"{len(unknown)} objects have a class that {settings.file} does not name: "
        f"{some(wrong, 10)}; it names {len(ids)} classes, {ids[0]} to {ids[-1]}.{off}\n"
        f"The first: {unknown[0].place}. Name the class, or correct the labels."
    )


def _content(
    settings: Settings,
    images: Sequence[Path],
    lines: Sequence[Sequence[Line]],
    sizes: Sequence[tuple[int, int] | None],
) -> tuple[dict[str, Any], list[str]]:
    entries: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    places, beyond = [], []
    _check_fractions(settings, lines)
    for number, (image, found, size) in enumerate(zip(images, lines, sizes, strict=True), start=1):
        height, width = size or (1, 1)
        name = Path(os.path.relpath(image, settings.root)).as_posix()
        entries.append({"id": number, "file_name": name, "height": height, "width": width})
        for line in found if size else ():
            made, is_beyond = _object(line, height, width)
            objects.append({"id": len(objects) + 1, "image_id": number, **made})
            places.append(line.place)
            if is_beyond:
                beyond.append(line.place)
    categories = [{"id": number, "name": name} for number, name in settings.names.items()]
    content = {"images": entries, "annotations": objects, "categories": categories}
    check_made_boxes(content, places, str(settings.file))
    notes = []
    if beyond:
        notes.append(
            f"{len(beyond)} of {len(objects)} polygons reach beyond their image and are cut at "
            f"its border, the first: {beyond[0]}"
        )
    return content, notes


def _check_fractions(settings: Settings, lines: Sequence[Sequence[Line]]) -> None:
    """Refuse coordinates in pixels."""
    pixels = [line for found in lines for line in found if max(line.numbers) > _PIXELS]
    number = sum(map(len, lines))
    if len(pixels) > 0.5 * number:
        raise UserError(
            f"{settings.file}: {len(pixels)} of {number} objects have coordinates above 1, which "
            f"look like pixels; the first: {pixels[0].place}.\n"
            "YOLO's coordinates are fractions of the image: divide x by its width, y by its height."
        )


def _object(line: Line, height: int, width: int) -> tuple[dict[str, Any], bool]:
    """Return an object in pixels, and whether its polygon reached beyond the image."""
    common = {"category_id": line.category, "iscrowd": 0}
    if not line.is_polygon:
        x, y, w, h = line.numbers
        box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
        return {**common, "bbox": box, "area": box[2] * box[3]}, False
    points = np.array(line.numbers).reshape(-1, 2)
    cut = points.clip(0, 1)
    is_beyond = bool(np.abs(points - cut).max() > _ROUNDING)
    cut = cut * (width, height)
    low, high = cut.min(axis=0), cut.max(axis=0)
    box = [*low.tolist(), *(high - low).tolist()]
    mask = {"segmentation": [cut.reshape(-1).tolist()], "area": polygon_area(cut)}
    return {**common, "bbox": box, **mask}, is_beyond
