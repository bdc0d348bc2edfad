"""Reads captions in COCO's format: one dataset dict per captioned image."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from virtex_det.errors import UserError

logger = logging.getLogger(__name__)


def load_coco_captions(json_file: str | Path, image_root: str | Path) -> list[dict[str, Any]]:
    """Load a captions file in COCO's format.

    Args:
        json_file: e.g. "annotations/captions_train2017.json".
        image_root: folder of the images.

    Returns:
        One dict per image that has captions, by image id: file_name, image_id, captions, and where the file has them
        height and width.

    Raises:
        UserError: the file is missing, is not JSON, is not of COCO's form, has no captions, or captions an image that
            it does not list.
    """
    content = _read_json(Path(json_file))
    try:
        images = {image["id"]: image for image in content["images"]}
        captions: dict[Any, list[str]] = defaultdict(list)
        for annotation in content.get("annotations", ()):
            captions[annotation["image_id"]].append(annotation["caption"].strip())
        dicts = [
            {
                "file_name": str(Path(image_root) / image["file_name"]),
                "image_id": image_id,
                **{key: image[key] for key in ("height", "width") if key in image},
                "captions": captions.get(image_id, []),
            }
            for image_id, image in sorted(images.items())
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{json_file} is JSON, but not of the form of COCO captions: {type(error).__name__}: {error}\n"
            'Expected {"images": [{"id", "file_name"}, ...], "annotations": [{"image_id", "caption"}, ...]}.'
        ) from error
    _check_images_known(json_file, captions, images)
    return keep_captioned(dicts, str(json_file))


def keep_captioned(dicts: Iterable[dict[str, Any]], source: str) -> list[dict[str, Any]]:
    """Drop empty captions, and then images without any; the log says how many.

    Args:
        dicts: dataset dicts with "captions".
        source: where they were read from.

    Raises:
        UserError: no image has a caption.
    """
    dicts = list(dicts)
    kept, empty = [], 0
    for entry in dicts:
        captions = [stripped for caption in entry["captions"] if (stripped := caption.strip())]
        empty += len(entry["captions"]) - len(captions)
        if captions:
            kept.append({**entry, "captions": captions})
    if not kept:
        raise UserError(
            f"{source} has {len(dicts)} images and no captions.\n"
            "Not every split comes with captions (COCO's test2017 does not): name one that does."
        )
    logger.info(
        "Loaded %d captioned images from %s; dropped %d without captions, and %d empty captions",
        *(len(kept), source, len(dicts) - len(kept), empty),
    )
    return kept


def register_coco_captions(name: str, json_file: str | Path, image_root: str | Path, **metadata: Any) -> None:
    """Register a captions file in COCO's format with Detectron2's catalogues; nothing is read before it is used.

    Args:
        name: name of the data set, e.g. "coco_2017_train_captions".
        json_file: captions file.
        image_root: folder of the images.
        metadata: anything else to keep about it.
    """
    DatasetCatalog.register(name, lambda: load_coco_captions(json_file, image_root))
    MetadataCatalog.get(name).set(
        json_file=str(json_file), image_root=str(image_root), evaluator_type="captions", **metadata
    )


def _read_json(json_file: Path) -> Any:
    try:
        with json_file.open(encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise UserError(
            f"there is no {json_file.name} in {json_file.parent.absolute()}\n"
            "Put it there, or set DETECTRON2_DATASETS to the folder of your data sets."
        ) from None
    except ValueError as error:
        raise UserError(f"{json_file} is not JSON: {error}\nDownload or make the file again.") from error


def _check_images_known(json_file: str | Path, captions: dict[Any, list[str]], images: dict[Any, Any]) -> None:
    unknown = [image_id for image_id in captions if image_id not in images]
    if unknown:
        raise UserError(
            f'{json_file}: {len(unknown)} image ids of captions are not among its "images", e.g. {unknown[0]!r}\n'
            "Captions and images must come from one file of one release."
        )
