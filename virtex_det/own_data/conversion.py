"""Own data of any form as an annotation file of COCO's."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.data import MetadataCatalog

from virtex_det.data.datasets import check_datasets
from virtex_det.data.datasets.by_name import UNLABELLED, find_source, read_found
from virtex_det.data.datasets.found import Found, image_sizes
from virtex_det.errors import UserError


class Converted(NamedTuple):
    """A data set in COCO's format.

    Attributes:
        content: what the file is to hold.
        image_root: folder of the images, the last part of the name coco:FILE.json:IMAGES.
        notes: what was noticed, a sentence each.
    """

    content: dict[str, Any]
    image_root: str
    notes: tuple[str, ...]


def readable_name(name: str) -> str:
    """Return a name of data by where they lie, for a registered data set with such files.

    Raises:
        UserError: the data set is unknown, has no labels, or is known only to a function.
    """
    check_datasets([name])
    metadata = MetadataCatalog.get(name)
    if find_source(name) is None:
        kind, file = metadata.get("evaluator_type"), metadata.get("json_file")
        if kind not in ("coco", "lvis") or not file or not metadata.get("image_root"):
            raise UserError(
                f"{name} was registered without an annotation file of COCO's or LVIS's format.\n"
                "Name the data by where they lie: coco:FILE.json:IMAGES, yolo:data.yaml:SPLIT or "
                "voc:FOLDER:SPLIT."
            )
        name = f"{kind}:{file}:{metadata.image_root}"
        check_datasets([name])
    elif metadata.evaluator_type == UNLABELLED:
        raise UserError(
            f"{name} has no labels, so there is nothing to convert.\n"
            "Name the data with their labels, such as yolo:data.yaml:train or voc:FOLDER:train."
        )
    return name


def convert(name: str, chosen: Collection[int | str] | None = None) -> Converted:
    """Return a data set in COCO's format.

    Ids of images and categories are those of the data where they have numbers, else 1, 2, 3 ...
    Boxes and masks are not changed or rounded.

    Args:
        name: as ``readable_name`` returns it.
        chosen: image ids, as in the dataset dicts; None for all images.
    """
    check_datasets([name])
    found = read_found(name)
    content = found.content
    images = content["images"]
    notes = [*found.notes]
    if chosen is not None:
        ids = {*chosen}
        images = [image for image in images if found.names.get(image["id"], image["id"]) in ids]
    unreadable = _without_size(found, images)
    if unreadable:
        notes.append(f"{len(unreadable)} images that cannot be read are left out")
        images = [image for image in images if image["id"] not in unreadable]
    kept = {image["id"] for image in images}
    objects = [entry for entry in content["annotations"] if entry["image_id"] in kept]
    info = {"description": f"from {name.partition(':')[0]} by virtex_det"}
    rest = {key: content[key] for key in ("info", "licenses") if key in content}
    return Converted(
        {
            "info": info,
            **rest,
            "images": images,
            "annotations": objects,
            "categories": content["categories"],
        },
        found.image_root,
        tuple(notes),
    )


def _without_size(found: Found, images: list[Mapping[str, Any]]) -> set[Any]:
    """Return the ids of images whose size stands for "unknown", because they cannot be read."""
    doubtful = [image for image in images if image["height"] == image["width"] == 1]
    paths = [Path(found.image_root) / image["file_name"] for image in doubtful]
    sizes, _ = image_sizes(paths, "sizes")
    return {image["id"] for image, size in zip(doubtful, sizes, strict=True) if size is None}
