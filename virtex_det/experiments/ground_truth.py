"""The annotations and images of an evaluation set, for the pictures of a report."""

import json
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from virtex_det.config.data_names import OBJECTS, is_by_name
from virtex_det.data.datasets.by_name import read_found
from virtex_det.data.datasets.class_rules import as_rules
from virtex_det.data.datasets.found import coco_content
from virtex_det.data.following import give_classes
from virtex_det.errors import UserError


def ground_truth_files(cfg: CfgNode, folder: Path) -> tuple[Path | None, Path | None]:
    """Return the annotation file of the first test set and the folder of its images.

    None where they are not here. For data that are named by where they lie the file is written into
    the folder given: theirs may be of another form, or have other classes (DATASETS.CLASSES).
    """
    name = cfg.DATASETS.TEST[0]
    if not is_by_name(name, OBJECTS):
        return _existing(name, "json_file"), _existing(name, "image_root")
    try:
        give_classes([name], as_rules(cfg.DATASETS.CLASSES))
        found = read_found(name)
    except UserError:
        return None, None
    file = folder / "ground_truth.json"
    file.write_text(json.dumps(coco_content(found)))
    return file, Path(found.image_root)


def _existing(dataset: str, what: str) -> Path | None:
    path = Path(str(MetadataCatalog.get(dataset).get(what, "")))
    return path if str(path) != "." and path.exists() else None
