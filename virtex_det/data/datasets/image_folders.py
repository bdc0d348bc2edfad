"""Data sets for classification: a folder per class as ImageNet has them, and iNaturalist's annotation files."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from torchvision.datasets import ImageFolder

from virtex_det.data.datasets.loading import load_dataset
from virtex_det.errors import UserError


def register_image_folders(name: str, root: str | Path) -> None:
    """Register images that lie in one folder per class; nothing is read before it is used.

    Args:
        name: name of the data set, e.g. "imagenet_train".
        root: holds the class folders; sorted by name they are the labels from 0 on.
    """
    DatasetCatalog.register(name, lambda: load_image_folders(name, root))
    MetadataCatalog.get(name).set(image_root=str(root), evaluator_type="classification")


def register_inaturalist(name: str, json_file: str | Path, image_root: str | Path) -> None:
    """Register an annotation file of iNaturalist; nothing is read before it is used.

    Args:
        name: name of the data set, e.g. "inaturalist_2018_train".
        json_file: its annotations, e.g. "train2018.json".
        image_root: folder that the file names in there start from.
    """
    DatasetCatalog.register(name, lambda: load_inaturalist(name, json_file, image_root))
    MetadataCatalog.get(name).set(json_file=str(json_file), image_root=str(image_root), evaluator_type="classification")


def load_image_folders(name: str, root: str | Path) -> list[dict[str, Any]]:
    """Load file_name, image_id and label of every image, and keep the class names in the data set's metadata.

    Raises:
        UserError: there is no class folder, or one without images.
    """
    try:
        folders = ImageFolder(str(root))
    except FileNotFoundError as error:
        raise UserError(
            f"data set {name}: {error}\n"
            f"Expected images as {root}/CLASS/IMAGE. Unpack the class again, or remove its folder from every split."
        ) from error
    MetadataCatalog.get(name).classes = folders.classes
    return [
        {"file_name": path, "image_id": str(Path(path).relative_to(root)), "label": label}
        for path, label in folders.samples
    ]


def load_inaturalist(name: str, json_file: str | Path, image_root: str | Path) -> list[dict[str, Any]]:
    """Load file_name, image_id and label of every image, and keep the class names in the data set's metadata."""
    content = json.loads(Path(json_file).read_text(encoding="utf-8"))
    categories = sorted(content["categories"], key=lambda category: category["id"])
    labels = {category["id"]: label for label, category in enumerate(categories)}
    files = {image["id"]: str(Path(image_root) / image["file_name"]) for image in content["images"]}
    MetadataCatalog.get(name).classes = [str(category["name"]) for category in categories]
    return [
        {
            "file_name": files[annotation["image_id"]],
            "image_id": annotation["image_id"],
            "label": labels[annotation["category_id"]],
        }
        for annotation in content["annotations"]
    ]


def check_labels(names: Iterable[str], num_classes: int) -> None:
    """Check that data sets for classification have the same classes, and a classifier as many.

    Args:
        names: of data sets; those that are not for classification always pass.
        num_classes: MODEL.CLASSIFIER.NUM_CLASSES.

    Raises:
        UserError: classes or their number differ.
    """
    classes = {name: found for name in names if (found := _classes(name))}
    first = next(iter(classes), "")
    for name, found in classes.items():
        if found != classes[first]:
            raise UserError(_differing_classes({first: classes[first], name: found}))
    if classes and len(classes[first]) != num_classes:
        raise UserError(
            f"the classifier has {num_classes} classes, data set {first} has {len(classes[first])}\n"
            f"Set MODEL.CLASSIFIER.NUM_CLASSES {len(classes[first])}."
        )


def _classes(name: str) -> list[str]:
    metadata = MetadataCatalog.get(name)
    if metadata.get("evaluator_type") == "classification" and not metadata.get("classes"):
        load_dataset(name)
    return metadata.get("classes", [])


def _differing_classes(classes: dict[str, list[str]]) -> str:
    (first, of_first), (second, of_second) = classes.items()
    alone = {first: set(of_first) - set(of_second), second: set(of_second) - set(of_first)}
    lines = [f"data sets {first} and {second} have different classes, so that their labels do not mean the same:"]
    for name, found in alone.items():
        lines.append(f"  only in {name}: {len(found)} classes, e.g. {', '.join(sorted(found)[:3]) or 'none'}")
    return "\n".join([*lines, "Complete the one, or remove the classes from the other."])
