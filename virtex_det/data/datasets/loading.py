"""Loading of registered datasets, with errors that say what to do if one is missing or broken."""

import difflib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from detectron2.data import DatasetCatalog, MetadataCatalog

from virtex_det.config.data_names import is_by_name
from virtex_det.data.datasets.annotation_files import (
    is_users_own,
    read_instances,
)
from virtex_det.data.datasets.dataset_dicts import check_dataset_dicts
from virtex_det.data.datasets.handover import HandOver
from virtex_det.data.datasets.ids import check_unique
from virtex_det.data.datasets.uri_datasets import register_by_name
from virtex_det.errors import UserError
from virtex_det.utils import without_garbage_collection

logger = logging.getLogger(__name__)

# By ``boxes_alone``.
_loaded = {False: HandOver(), True: HandOver()}
# Names of the datasets that Detectron2 and this package register below $DETECTRON2_DATASETS.
STANDARD: set[str] = set()
_ADDRESS = re.compile(r"(https?|ftps?)://", re.IGNORECASE)
# Errors of Detectron2's readers for an invalid file.
_READING_ERRORS = (
    *(ValueError, LookupError, TypeError, AttributeError, AssertionError, OSError, OverflowError),
    *(RecursionError, ParseError),
)


def check_datasets(names: Iterable[str]) -> None:
    """Check that datasets are registered and that their files exist.

    Args:
        names: names in Detectron2's DatasetCatalog; or names such as ``pairs:FOLDER``, which say
            where the data is and are registered here.

    Raises:
        UserError: a name is unknown, a file or folder is missing, or one is named by an address.
    """
    for name in names:
        if name not in DatasetCatalog.list():
            register_by_name(name)
        if name not in DatasetCatalog.list():
            raise UserError(_unknown_name(name))
        _refuse_addresses(name)
        # Path's methods raise for a name that is too long.
        missing = [path for path in _needed_paths(name) if not os.path.exists(path)]  # noqa: PTH110
        if missing:
            raise UserError(_missing_files(name, missing))


def load_dataset(name: str, *, boxes_alone: bool = False) -> list[dict[str, Any]]:
    """Load a registered data set.

    Args:
        name: name in Detectron2's DatasetCatalog, or a name that says where the data is.
        boxes_alone: masks are not used; then COCO's objects without a polygon of 3 points or more,
            which Detectron2 leaves out, are loaded with their boxes.

    Returns:
        Its dataset dicts, as Detectron2 or the registered function makes them.

    Raises:
        UserError: the dataset is unknown, missing, empty or not JSON, an image id is missing or
            occurs twice, or its categories do not match.
    """
    check_datasets([name])
    kept = _loaded[boxes_alone].take(name)
    if kept is not None:
        return kept
    try:
        with without_garbage_collection(long_lived=True):
            dicts = read_instances(name, boxes_alone=boxes_alone)
            dicts = DatasetCatalog.get(name) if dicts is None else dicts
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, _READING_ERRORS) or is_users_own(name):
            raise UserError(_unreadable(name, error)) from error
        raise
    if dicts is not None and is_users_own(name):
        _check_function(name, dicts)
    if not dicts:
        raise UserError(
            f"data set {name} has no images (read from {_source(name)}).\nName data with images."
        )
    wrong = [
        image_id for entry in dicts if not isinstance(image_id := entry.get("image_id"), int | str)
    ]
    if wrong:
        raise UserError(
            f'data set {name}: the "image_id" of {len(wrong)} of {len(dicts)} images is not an '
            f"int or str, the first is {wrong[0]!r} ({_source(name)}).\n"
            "Give each image its own id, an int or str (int(...) for NumPy's numbers): evaluation "
            "and DATASETS.TRAIN_FRACTION need it."
        )
    try:
        check_unique([entry["image_id"] for entry in dicts], "image")
    except UserError as error:
        raise UserError(f"data set {name} ({_source(name)}): {error}") from error
    _check_category_ids(name, dicts)
    _tell_shared_files(name, dicts)
    return dicts


def files_of(names: Iterable[str]) -> list[Path]:
    """Return the files and folders that registered data sets name, such as annotation files."""
    return [path for name in names for path in _needed_paths(name)]


def load_captions(names: Iterable[str]) -> list[str]:
    """Load data sets and return all their captions, in order; one without captions has none.

    Raises:
        UserError: as ``load_dataset``.
    """
    images = [image for name in names for image in load_dataset(name)]
    return [caption for image in images for caption in image.get("captions", [])]


def _check_function(name: str, dicts: Any) -> None:
    try:
        check_dataset_dicts(dicts, MetadataCatalog.get(name).as_dict())
    except UserError as error:
        raise UserError(f"data set {name}: {error}") from error


def _tell_shared_files(name: str, dicts: list[dict[str, Any]]) -> None:
    """Warn of an image file under several ids: one entry's objects are background in the other."""
    counts = Counter(str(entry["file_name"]) for entry in dicts if entry.get("file_name"))
    shared = [file for file, count in counts.items() if count > 1]
    if shared:
        logger.warning(
            "data set %s: %d files have more than one image id, e.g. %s: each entry has only its "
            "own annotations. Give a file one id, to which all its annotations refer",
            name,
            len(shared),
            shared[0],
        )


def keep_loaded(name: str, dicts: list[dict[str, Any]], *, boxes_alone: bool = False) -> None:
    """Keep a loaded dataset for its next load with the same ``boxes_alone``."""
    _loaded[boxes_alone].keep(name, dicts)


def forget_loaded() -> None:
    """Forget everything that ``keep_loaded`` kept."""
    for loaded in _loaded.values():
        loaded.forget()


def check_num_classes(name: str, num_classes: int) -> None:
    """Check that a detector has as many classes as a dataset.

    Args:
        name: name of a dataset; one without classes (captions) always passes.
        num_classes: MODEL.ROI_HEADS.NUM_CLASSES.

    Raises:
        UserError: the numbers differ.
    """
    classes = MetadataCatalog.get(name).get("thing_classes")
    if classes is not None and len(classes) != num_classes:
        raise UserError(
            f"the detector has {num_classes} classes, but data set {name} has {len(classes)}\n"
            f"Set MODEL.ROI_HEADS.NUM_CLASSES {len(classes)}."
        )


def _refuse_addresses(name: str) -> None:
    metadata = MetadataCatalog.get(name).as_dict()
    for key in ("json_file", "image_root", "image_dir", "dirname", "place"):
        if _ADDRESS.match(str(metadata.get(key, ""))):
            raise UserError(
                f"data set {name}: its {key} is the address {metadata[key]}, and data are never "
                "fetched.\nDownload them, and register the data set with the path on your disk."
            )


def _needed_paths(name: str) -> list[Path]:
    """Return the local files and folders in the dataset's metadata."""
    metadata = MetadataCatalog.get(name).as_dict()
    paths = [
        metadata[key]
        for key in ("json_file", "boxes_json", "image_root", "image_dir", "dirname", "place")
        if metadata.get(key)
    ]
    paths += metadata.get("shards", ())
    if "dirname" in metadata and "split" in metadata:
        paths.append(f"{metadata['dirname']}/ImageSets/Main/{metadata['split']}.txt")
    return [Path(path) for path in dict.fromkeys(map(str, paths)) if "://" not in path]


def _source(name: str) -> str:
    metadata = MetadataCatalog.get(name)
    place = metadata.get("json_file") or metadata.get("dirname") or metadata.get("place")
    return str(place or "its registered function")


def _unknown_name(name: str) -> str:
    near = difflib.get_close_matches(name, DatasetCatalog.list(), n=4)
    hint = (
        f"Did you mean {' or '.join(near)}?" if near else "DatasetCatalog.list() returns all names."
    )
    return (
        f"there is no data set named {name!r}\n"
        f"{hint} Your own data: a name like coco:FILE.json:IMAGES, yolo:data.yaml:SPLIT or "
        "voc:FOLDER:SPLIT; captions: pairs:FOLDER or captions:FILE.json:IMAGE_FOLDER."
    )


def _missing_files(name: str, missing: list[Path]) -> str:
    lines = [f"data set {name} is missing:"]
    lines += [f"  {path.name} in {path.parent.absolute()}{_like(path)}" for path in missing[:5]]
    if len(missing) > 5:
        lines.append(f"  and {len(missing) - 5} more")
    if is_by_name(name):
        return "\n".join(lines)
    if name in STANDARD:
        setting = os.environ.get("DETECTRON2_DATASETS")
        state = (
            f"is {setting}" if setting else f"is not set, which means {Path('datasets').absolute()}"
        )
        lines.append(
            f"DETECTRON2_DATASETS {state}; it should have the data sets of a standard layout: "
            "coco/, lvis/, VOC2007/, imagenet/, inat2018/, localized_narratives/, scenes/"
        )
    else:
        lines.append(
            f"{name} was registered with these paths; relative ones start at {Path.cwd()}, where "
            "the command was started."
        )
    made_by = MetadataCatalog.get(name).get("made_by")
    return "\n".join([*lines, f"Make it with: {made_by}"] if made_by else lines)


def _like(path: Path) -> str:
    is_folder = os.path.isdir(path.parent)  # noqa: PTH112  (Path's raises for a long name)
    beside = [other.name for other in path.parent.iterdir()] if is_folder else []
    near = difflib.get_close_matches(path.name, beside, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _unreadable(name: str, error: Exception) -> str:
    # str(KeyError) is the repr of its argument.
    reason = error.args[0] if isinstance(error, KeyError) and error.args else error
    kind = "is not JSON" if type(error).__name__ == "JSONDecodeError" else "cannot be used"
    advice = "Correct that place, or make the annotations again."
    if is_users_own(name):
        advice = (
            "The function registered under this name raised this error: correct the function, or "
            "its data."
        )
    return (
        f"data set {name}: {_source(name)} {kind}\n"
        f"  {type(error).__name__}: {str(reason)[:600]}\n"
        f"{advice}"
    )


def _check_category_ids(name: str, dicts: list[dict[str, Any]]) -> None:
    """Check the contiguous category ids, which Detectron2's LVIS reader does not."""
    classes = MetadataCatalog.get(name).get("thing_classes")
    if classes is None:
        return
    for entry in dicts:
        for annotation in entry.get("annotations", ()):
            if not 0 <= annotation["category_id"] < len(classes):
                raise UserError(
                    f"data set {name}: image {entry['image_id']} has an annotation of class "
                    f"{annotation['category_id']}, but its {len(classes)} classes are numbered "
                    f"from 0 to {len(classes) - 1} ({_source(name)}).\n"
                    "Use annotations and categories of one release."
                )
