"""Names of data sets that say where the data lie, such as yolo:data.yaml:train.

Their place may differ from machine to machine, so records, protocols and resumed runs know such a
data set by its short name, without folders, and compare its content by a hash.
"""

from collections.abc import Iterable, Mapping
from functools import reduce
from pathlib import PurePath
from typing import Any

from detectron2.config import CfgNode

from virtex_det.config.nodes import plain_leaves

# Kinds of data with objects, and of data with captions.
OBJECTS = ("coco", "lvis", "yolo", "voc", "folder")
CAPTIONS = ("captions", "narratives", "regions", "pairs", "shards")
KEYS = ("DATASETS.TRAIN", "DATASETS.TEST")

# Detectron2's evaluator_type by kind.
EVALUATORS = {
    "coco": "coco",
    "lvis": "lvis",
    "yolo": "coco",
    "voc": "pascal_voc",
    **dict.fromkeys(CAPTIONS, "captions"),
}

# Config keys of the number of classes by MODEL.META_ARCHITECTURE; 0 is the number of the data.
NUMBER_KEYS = {
    "GeneralizedRCNN": "MODEL.ROI_HEADS.NUM_CLASSES",
    "PanopticFPN": "MODEL.ROI_HEADS.NUM_CLASSES",
    "RetinaNet": "MODEL.RETINANET.NUM_CLASSES",
}
MASK_KEYS = ("MODEL.MASK_ON", "INPUT.MASK_FORMAT")  # which data by name may change


def is_by_name(name: str, kinds: Iterable[str] = (*OBJECTS, *CAPTIONS)) -> bool:
    """Return whether a name says where the data lie, as one of some kinds."""
    kind, colon, place = name.partition(":")
    return bool(colon and place) and kind in kinds


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return the short name of each data set, by its name; other names stay.

    As many folders are kept as tell the given names apart.

    Example:
        >>> list(short_names(["yolo:/data/nuts/data.yaml:train", "coco_2017_val"]).values())
        ['yolo:data.yaml:train', 'coco_2017_val']
        >>> list(short_names(["yolo:nuts/data.yaml:val", "yolo:bolts/data.yaml:val"]).values())
        ['yolo:nuts/data.yaml:val', 'yolo:bolts/data.yaml:val']
    """
    unique = list(dict.fromkeys(names))
    found = {name: _short(name, 1) for name in unique}
    for folders in range(2, 1 + max((len(_parts(name)) for name in unique), default=0)):
        shorts = list(found.values())
        repeated = [name for name in unique if shorts.count(found[name]) > 1]
        found |= {name: _short(name, folders) for name in repeated}
    return found


def voc_year(folder: str | PurePath) -> int:
    """Return the year of VOC's metric for a folder: 2007 for VOC2007, 2012 for all others."""
    return 2007 if PurePath(folder).name == "VOC2007" else 2012


def metadata_by_name(name: str) -> dict[str, Any]:
    """Return what a name that says where the data lie tells of them, under Detectron2's keys.

    Returns:
        Empty for another name.
    """
    if not is_by_name(name):
        return {}
    kind, place, *_ = name.split(":")
    known = {"evaluator_type": EVALUATORS.get(kind, "")}
    return known | {"year": voc_year(place)} if kind == "voc" else known


def open_number(cfg: CfgNode) -> str:
    """Return the key of a detector's number of classes if it is 0, that of the data; else ""."""
    key = NUMBER_KEYS.get(cfg.MODEL.META_ARCHITECTURE, "")
    return key if key and reduce(getattr, key.split("."), cfg) == 0 else ""


def keys_of_data(cfg: CfgNode) -> tuple[str, ...]:
    """Return the keys whose values a run takes from its data, whatever a config says."""
    is_own = any(is_by_name(name, OBJECTS) for name in cfg.DATASETS.TRAIN)
    number = open_number(cfg)
    return ((number,) if number else ()) + (MASK_KEYS if is_own else ())


def portable_leaves(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a config by dotted key, as ``plain_leaves``, with short names of data.

    Args:
        content: a config, or the content of a run's ``config.yaml``.
    """
    leaves = plain_leaves(content)
    for key in KEYS:
        names = leaves.get(key)
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            short = short_names(names)
            leaves[key] = [short[name] for name in names]
    return leaves


def _short(name: str, folders: int) -> str:
    """Return a name with the last parts of each path, without its folder of images."""
    if not is_by_name(name):
        return name
    kind, *parts = name.split(":")
    if kind in ("coco", "lvis", "captions", "narratives", "regions") and len(parts) > 1:
        parts = parts[:-1]
    return ":".join([kind, *("/".join(PurePath(part).parts[-folders:]) for part in parts)])


def _parts(name: str) -> tuple[str, ...]:
    return PurePath(name).parts if is_by_name(name) else ()
