"""Classes of models and datasets: comparison of their number, names and order."""

import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from itertools import zip_longest
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from tabulate import tabulate

from virtex_det.config.data_names import NUMBER_KEYS
from virtex_det.config.mappers import mapper_name
from virtex_det.errors import UserError
from virtex_det.escaping import visible

logger = logging.getLogger(__name__)

# Metadata keys of the class names.
_OF_OBJECTS, _OF_IMAGES, _OF_PIXELS = "thing_classes", "classes", "stuff_classes"
_DETECTION_MAPPERS = ("DetectionMapper", "DatasetMapper")
_SHOWN = 5


class ModelClasses(NamedTuple):
    """The classes of a model.

    Attributes:
        metadata: key of the class names in a dataset's metadata.
        key: config key of the number of classes; empty for an unknown model.
        number: its value.
    """

    metadata: str
    key: str = ""
    number: int = 0


def model_classes(cfg: CfgNode) -> ModelClasses | None:
    """Return the classes of a config's model; None for a model without classes, as a captioner."""
    mapper, architecture = mapper_name(cfg), cfg.MODEL.META_ARCHITECTURE
    if mapper in ("ClassificationMapper", "MultilabelMapper"):
        metadata = _OF_IMAGES if mapper == "ClassificationMapper" else _OF_OBJECTS
        return _with_number(cfg, metadata, "MODEL.CLASSIFIER.NUM_CLASSES")
    if architecture == "SemanticSegmentor":
        return _with_number(cfg, _OF_PIXELS, "MODEL.SEM_SEG_HEAD.NUM_CLASSES")
    if architecture in NUMBER_KEYS:
        return _with_number(cfg, _OF_OBJECTS, NUMBER_KEYS[architecture])
    return ModelClasses(_OF_OBJECTS) if mapper in _DETECTION_MAPPERS else None


def is_detector(cfg: CfgNode) -> bool:
    """Return whether a config's model detects objects, not captions, labels or pixel classes."""
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        return False
    mapper = mapper_name(cfg)
    is_known = cfg.MODEL.META_ARCHITECTURE in NUMBER_KEYS
    return mapper in _DETECTION_MAPPERS or (is_known and mapper != "MultilabelMapper")


def class_names(cfg: CfgNode, name: str) -> tuple[str, ...]:
    """Return the names of a dataset's classes, in order; empty if it or the model has no classes.

    Load the dataset before: many registrations set the names only then.
    """
    classes = model_classes(cfg)
    return (
        tuple(map(str, MetadataCatalog.get(name).get(classes.metadata, ()) or ()))
        if classes
        else ()
    )


def training_classes(cfg: CfgNode) -> tuple[str, ...]:
    """Return the class names of DATASETS.TRAIN, which must be loaded; empty without classes."""
    found = (class_names(cfg, name) for name in cfg.DATASETS.TRAIN if name in DatasetCatalog)
    return next(filter(None, found), ())


def check_classes(cfg: CfgNode, names: Sequence[str]) -> None:
    """Check that all datasets have the same classes, and that the model has as many.

    Args:
        cfg: config of the model.
        names: datasets for training and evaluation, which must be loaded.

    Raises:
        UserError: number, names or order of the classes differ.
    """
    classes = model_classes(cfg)
    check_same_classes(cfg, names)
    for name in dict.fromkeys(names):
        found = class_names(cfg, name)
        _tell_repeated(name, found)
        if classes and classes.key and found and len(found) != classes.number:
            what = {"CLASSIFIER": "classifier", "SEM_SEG_HEAD": "semantic head"}.get(
                classes.key.split(".")[1], "detector"
            )
            raise UserError(
                f"the {what} has {classes.number} classes, but data set {name} has {len(found)}: "
                f"{_some(found)}\n"
                f"Set {classes.key} {len(found)}."
            )


def check_same_classes(cfg: CfgNode, names: Iterable[str]) -> None:
    """Check that all datasets, which must be loaded, have the same classes.

    Raises:
        UserError: number, names or order of the classes differ.
    """
    named = {name: found for name in dict.fromkeys(names) if (found := class_names(cfg, name))}
    first = next(iter(named), "")
    for name, found in named.items():
        compare_classes({first: named[first], name: found}, advice=_ADVICE)


def check_unnamed_classes(cfg: CfgNode, name: str, dicts: Sequence[Mapping]) -> None:
    """Check the class numbers of a dataset without class names against the model.

    Raises:
        UserError: the model does not have a number.
    """
    classes = model_classes(cfg)
    if (
        classes is None
        or not classes.key
        or classes.metadata == _OF_PIXELS
        or class_names(cfg, name)
    ):
        return
    for entry in dicts:
        labels = (
            [entry["label"]]
            if "label" in entry
            else [a["category_id"] for a in entry.get("annotations", ())]
        )
        if wrong := [label for label in labels if not 0 <= label < classes.number]:
            raise UserError(
                f"data set {name}: image {entry['image_id']} has class {wrong[0]}, counted from "
                f"0, but {classes.key} is {classes.number}.\n"
                "The data set has no class names, so only numbers can be compared. "
                f'Name them: MetadataCatalog.get("{name}").set({classes.metadata}=[...])'
            )


def compare_classes(sides: Mapping[str, Sequence[str]], advice: str) -> None:
    """Refuse two lists of classes that differ; the error shows the first differences in a table.

    Args:
        sides: two lists of class names, by their owner's name.
        advice: what to do.

    Raises:
        UserError: the lists differ in number, names or order.
    """
    if len(set(map(tuple, sides.values()))) <= 1:
        return
    rows = list(enumerate(zip_longest(*sides.values(), fillvalue="(none)")))
    differing = [[number, *_told_apart(row)] for number, row in rows if len(set(row)) > 1]
    table = tabulate(differing[:_SHOWN], ["class", *sides], disable_numparse=True)
    counts = " and ".join(str(len(names)) for names in sides.values())
    more = f"\n  and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    indented = "\n".join(f"  {line}" for line in table.splitlines())
    raise UserError(
        f"{' and '.join(sides)} have different classes ({counts}), so a class number has "
        "different meanings:\n"
        f"{indented}{more}\n"
        f"{advice}"
    )


def class_table(dicts: Iterable[Mapping[str, Any]], classes: Sequence[str]) -> str:
    """Return a table of the number of objects per class, without crowds.

    Detectron2's own table prints a class named "1e3" as 1000.

    Args:
        dicts: dataset dicts with annotations.
        classes: names, in the order of the class numbers.
    """
    objects = (annotation for entry in dicts for annotation in entry["annotations"])
    counts = Counter(
        annotation["category_id"] for annotation in objects if not annotation.get("iscrowd", 0)
    )
    cells = [
        cell for number, name in enumerate(classes) for cell in (visible(name, ""), counts[number])
    ]
    columns = min(6, len(cells))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    rows.append(["total", sum(counts.values())])
    names = list(range(0, columns, 2))
    headers = ["class", "objects"] * len(names)
    return tabulate(rows, headers, tablefmt="pipe", numalign="left", disable_numparse=names)


_ADVICE = (
    "A model learns class numbers, counted from 0 in the order of the category ids. Give all data "
    "sets the same categories with ids in the same order, or train and evaluate on data sets that "
    "have them."
)


def _with_number(cfg: CfgNode, metadata: str, key: str) -> ModelClasses:
    return ModelClasses(metadata, key, reduce(getattr, key.split("."), cfg))


def _tell_repeated(name: str, classes: Sequence[str]) -> None:
    repeated = [title for title, count in Counter(classes).items() if count > 1]
    if repeated:
        logger.warning(
            "data set %s has several classes of one name (%s): they stay separate, but their "
            "order in two data sets cannot be compared. Give each class its own name",
            name,
            _some(repeated),
        )


def _told_apart(names: Sequence[str]) -> Sequence[str]:
    """Return the names, escaped if they would look alike (spaces, combining accents)."""
    return names if len(set(map(_look, names))) > 1 else [ascii(name) for name in names]


def _look(name: str) -> str:
    return " ".join("".join(filter(str.isprintable, unicodedata.normalize("NFKC", name))).split())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
