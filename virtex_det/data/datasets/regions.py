"""Captions together with the boxes of objects: what LocCa learns from."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from virtex_det.data.datasets.annotation_content import read_annotations
from virtex_det.data.datasets.captions import load_coco_captions
from virtex_det.data.datasets.ids import check_coco_ids
from virtex_det.data.datasets.objects import check_objects
from virtex_det.errors import UserError


def load_regions(
    captions_json: str | Path, boxes_json: str | Path, image_root: str | Path
) -> list[dict[str, Any]]:
    """Load captions in COCO's format, and the boxes of the same images from an instances file.

    Args:
        captions_json: e.g. "annotations/captions_train2017.json".
        boxes_json: e.g. "annotations/instances_train2017.json".
        image_root: folder of the images.

    Returns:
        Dicts of ``load_coco_captions`` with "regions", one for each object with an area that is no
        crowd: {"text": the name of its category, "box": left, top, right and bottom as fractions of
        the image}.

    Raises:
        UserError: a file is missing or invalid, or no captioned image is in the other file.
    """
    dicts = load_coco_captions(captions_json, image_root)
    content = read_annotations(boxes_json, "an annotation file in COCO's format")
    check_coco_ids(content, str(boxes_json))
    check_objects(content, "coco", str(boxes_json))
    images = {image["id"]: image for image in content["images"]}
    if not any(entry["image_id"] in images for entry in dicts):
        raise UserError(
            f"No image of {captions_json} is in {boxes_json}: they have no image id in common, "
            f"e.g. {dicts[0]['image_id']!r} and {next(iter(images), None)!r}.\n"
            "Captions and boxes must be of the same images, with the same ids."
        )
    regions = _by_image(content, images)
    return [{**entry, "regions": regions.get(entry["image_id"], [])} for entry in dicts]


def register_regions(
    name: str,
    captions_json: str | Path,
    boxes_json: str | Path,
    image_root: str | Path,
    **metadata: Any,
) -> None:
    """Register captions with boxes with Detectron2; they are read on first use.

    Args:
        name: name of the dataset, e.g. "coco_2017_train_regions".
        captions_json: as for ``load_regions``.
        boxes_json: as for ``load_regions``.
        image_root: folder of the images.
        metadata: other entries of its metadata.
    """
    DatasetCatalog.register(name, lambda: load_regions(captions_json, boxes_json, image_root))
    MetadataCatalog.get(name).set(
        json_file=str(captions_json),
        boxes_json=str(boxes_json),
        image_root=str(image_root),
        evaluator_type="captions",
        **metadata,
    )


def _by_image(
    content: Mapping[str, Any], images: Mapping[Any, Mapping[str, Any]]
) -> dict[Any, list[dict[str, Any]]]:
    names = {category["id"]: str(category["name"]) for category in content.get("categories", ())}
    found: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for entry in content.get("annotations", ()):
        if entry.get("iscrowd", 0):
            continue
        box = _fractions(entry["bbox"], images[entry["image_id"]])
        if box[0] < box[2] and box[1] < box[3]:
            found[entry["image_id"]].append({"text": names[entry["category_id"]], "box": box})
    return found


def _fractions(box: Sequence[float], image: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the sides of a box (left, top, width, height in pixels) as fractions of the image."""
    left, top, width, height = box
    sides = (left, top, left + width, top + height)
    lengths = (image["width"], image["height"]) * 2
    return tuple(min(max(s / length, 0.0), 1.0) for s, length in zip(sides, lengths, strict=True))
