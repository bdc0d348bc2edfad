"""Dataset dicts of COCO and LVIS, equal to Detectron2's, from a parsed and checked file.

Detectron2's own readers would parse the file again with pycocotools and lvis, the slowest step.
"""

import inspect
import logging
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import pycocotools.mask as mask_tools
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import get_lvis_instances_meta
from detectron2.structures import BoxMode

from virtex_det.data.datasets.found import DIFFICULT
from virtex_det.errors import UserError

logger = logging.getLogger(__name__)

Content = Mapping[str, Any]
_STYLES = {
    "detectron2.data.datasets.coco.register_coco_instances.<locals>.<lambda>": "coco",
    "detectron2.data.datasets.lvis.register_lvis_instances.<locals>.<lambda>": "lvis",
}
_COCO_KEYS = ("iscrowd", "bbox", "keypoints", "category_id")
_KEYS_BY_NAME = (*_COCO_KEYS, DIFFICULT)


class Registration(NamedTuple):
    """The arguments of a dataset's registration by Detectron2's function for COCO or LVIS.

    Attributes:
        style: "coco" or "lvis".
        json_file: path of the annotations.
        image_root: folder of the images; LVIS's reader appends the folder of the split as it is.
        name: name of the dataset.
    """

    style: str
    json_file: str
    image_root: str
    name: str


def registration_of(name: str) -> Registration | None:
    """Return a dataset's registration; None if it is not Detectron2's for a JSON file."""
    function = DatasetCatalog[name]
    style = _STYLES.get(
        f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    )
    given = inspect.getclosurevars(function).nonlocals if style else {}
    if style is None or given.keys() != {"json_file", "image_root", "name"}:
        return None
    return Registration(style, str(given["json_file"]), str(given["image_root"]), given["name"])


def make_dicts(
    content: Content,
    registration: Registration,
    *,
    boxes_alone: bool = False,
    by_name: bool = False,
) -> list[dict[str, Any]]:
    """Return the dataset dicts, and set the metadata, of Detectron2's reader.

    Args:
        content: content of the JSON file after ``check_coco_ids`` and ``check_objects``. It is not
            changed; the dicts share its boxes and polygons.
        registration: the dataset's registration.
        boxes_alone: keep COCO's objects without a polygon of 3 points or more, with their box only;
            Detectron2 always leaves them out.
        by_name: the data are named by where they lie: in any format, with VOC's difficult objects,
            and with any numbers of categories.

    Raises:
        UserError: an annotation is invalid for Detectron2's reader.
    """
    if registration.style == "lvis":
        return _lvis_dicts(content, registration)
    return _coco_dicts(content, registration, boxes_alone, by_name)


def _coco_dicts(
    content: Content, registration: Registration, boxes_alone: bool, by_name: bool
) -> list[dict[str, Any]]:
    classes = _set_classes(content, registration, by_name)
    objects = _ObjectsOfCOCO(classes, boxes_alone, _KEYS_BY_NAME if by_name else _COCO_KEYS)
    dicts = [
        {
            "file_name": _join(registration.image_root, image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": objects.make(annotations),
        }
        for image, annotations in _by_image(content, registration.json_file)
    ]
    if objects.without_polygon:
        logger.warning(
            "%s: %d objects have no polygon of 3 points or more, the first is annotation %s; %s",
            registration.json_file,
            len(objects.without_polygon),
            objects.without_polygon[0],
            "they are loaded with their boxes only"
            if boxes_alone
            else "they are left out, as by Detectron2",
        )
    return dicts


def _set_classes(content: Content, registration: Registration, by_name: bool) -> dict[Any, int]:
    """Set the dataset's class names and numbers; return the numbers by category id."""
    categories = sorted(content.get("categories", ()), key=lambda category: category["id"])
    if not categories:
        raise UserError(
            f'{registration.json_file} has no "categories"; '
            "expected a list of objects with id and name."
        )
    ids = [category["id"] for category in categories]
    metadata = MetadataCatalog.get(registration.name)
    metadata.thing_classes = [category["name"] for category in categories]
    has_gaps = ids[0] != 1 or ids[-1] != len(ids)
    if not by_name and has_gaps and "coco" not in registration.name:
        logger.warning(
            "%s: the category ids are not 1 to %d without gaps; classes are numbered in the order "
            "of the ids",
            registration.json_file,
            len(ids),
        )
    metadata.thing_dataset_id_to_contiguous_id = {
        category_id: number for number, category_id in enumerate(ids)
    }
    return metadata.thing_dataset_id_to_contiguous_id


class _ObjectsOfCOCO:
    """Makes the objects of images, and collects the ids of objects without a valid polygon."""

    def __init__(
        self, classes: Mapping[Any, int], boxes_alone: bool, keys: tuple[str, ...]
    ) -> None:
        self.classes = classes
        self.keys = keys
        self.boxes_alone = boxes_alone
        self.without_polygon: list[Any] = []

    def make(self, annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the objects of one image."""
        return [made for entry in annotations if (made := self._make(entry)) is not None]

    def _make(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        made = {key: entry[key] for key in self.keys if key in entry}
        if mask := entry.get("segmentation"):
            mask = _encode(entry) if isinstance(mask, dict) else _with_three_points(mask)
            if mask:
                made["segmentation"] = mask
            else:
                self.without_polygon.append(entry["id"])
                if not self.boxes_alone:
                    return None
        if entry.get("ignore", 0) != 0:
            raise UserError(
                f"annotation {entry['id']} has ignore {entry['ignore']!r:.80}, which COCO does "
                "not have.\n"
                "Remove the annotation from the file, or set iscrowd 1 if training should skip it."
            )
        if keypoints := entry.get("keypoints"):
            made["keypoints"] = [
                value if place % 3 == 2 else value + 0.5 for place, value in enumerate(keypoints)
            ]
        made["bbox_mode"] = BoxMode.XYWH_ABS
        made["category_id"] = self.classes[made["category_id"]]
        return made


def _with_three_points(polygons: list[list[float]]) -> list[list[float]]:
    return [polygon for polygon in polygons if len(polygon) % 2 == 0 and len(polygon) >= 6]


def _encode(entry: dict[str, Any]) -> dict[str, Any]:
    """Return run lengths in COCO's compressed format."""
    mask = entry["segmentation"]
    if not isinstance(mask["counts"], list):
        return mask
    try:
        return mask_tools.frPyObjects(mask, *mask["size"])
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"annotation {entry['id']} has segmentation {mask!r:.80}; expected "
            '{"size": [height, width], "counts": [whole numbers]}.'
        ) from error


def _lvis_dicts(content: Content, registration: Registration) -> list[dict[str, Any]]:
    metadata = _lvis_metadata(registration.name)
    MetadataCatalog.get(registration.name).set(**metadata)
    classes = metadata.get("thing_dataset_id_to_contiguous_id")
    return [
        {
            "file_name": _lvis_file(image, registration.image_root),
            "height": image["height"],
            "width": image["width"],
            "not_exhaustive_category_ids": image.get("not_exhaustive_category_ids", []),
            "neg_category_ids": image.get("neg_category_ids", []),
            "image_id": image["id"],
            "annotations": [_lvis_object(entry, classes) for entry in annotations],
        }
        for image, annotations in _by_image(content, registration.json_file)
    ]


def _lvis_metadata(name: str) -> dict[str, Any]:
    try:
        return get_lvis_instances_meta(name)
    except (ValueError, AssertionError) as error:
        raise UserError(
            f"data set {name} was registered as LVIS data, but its name has neither v0.5 nor v1, "
            "by which Detectron2 finds the classes of LVIS.\n"
            "Register data with classes of your own by register_coco_instances; each image then "
            "needs a file_name."
        ) from error


def _lvis_file(image: dict[str, Any], image_root: str) -> str:
    parts = str(image.get("coco_url", "")).split("/")
    if len(parts) < 2:
        raise UserError(
            f"image {image['id']} has coco_url {image.get('coco_url')!r:.80}; expected a URL that "
            "ends with the folder of the split and the file, such as "
            "http://images.cocodataset.org/train2017/000000155379.jpg."
        )
    return _join(image_root + parts[-2], parts[-1])


def _lvis_object(entry: dict[str, Any], classes: Mapping[Any, int] | None) -> dict[str, Any]:
    mask = entry["segmentation"]
    if not isinstance(mask, list) or not mask or len(_with_three_points(mask)) < len(mask):
        raise UserError(
            f"annotation {entry['id']} has segmentation {mask!r:.80}; expected polygons of 3 "
            "points or more, as LVIS has them for each object."
        )
    category = entry["category_id"]
    return {
        "bbox": entry["bbox"],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": classes[category] if classes else category - 1,
        "segmentation": mask,
    }


def _by_image(
    content: Content, json_file: str
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Return each image with its objects, in the order of the image ids."""
    images = sorted(content.get("images", ()), key=lambda image: image["id"])
    objects: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in images}
    others = 0
    for entry in content.get("annotations", ()):
        if entry["image_id"] in objects:
            objects[entry["image_id"]].append(entry)
        else:
            others += 1
    logger.info("Loaded %d images from %s", len(images), json_file)
    if others:
        logger.warning(
            "%s: %d annotations belong to no image of the file and are left out", json_file, others
        )
    return [(image, objects[image["id"]]) for image in images]


def _join(folder: str, file: str) -> str:
    # As Detectron2 writes it; Path would remove "./" and "//".
    return os.path.join(folder, file)  # noqa: PTH118
