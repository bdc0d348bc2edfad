"""Classification datasets: a folder per class, as in ImageNet, and iNaturalist's annotations."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from virtex_det.data.datasets.folders import find_files, is_data
from virtex_det.data.datasets.ids import check_coco_ids, check_id_or_name, is_name
from virtex_det.data.datasets.loading import load_dataset
from virtex_det.errors import UserError
from virtex_det.image_files import IMAGE_SUFFIXES
from virtex_det.text_files import read_json


def register_image_folders(name: str, root: str | Path) -> None:
    """Register a folder with one subfolder of images per class; it is read on first use.

    Args:
        name: name of the dataset, e.g. "imagenet_train".
        root: folder of the class folders; sorted by name, these are the labels 0, 1, ...
    """
    DatasetCatalog.register(name, lambda: load_image_folders(name, root))
    MetadataCatalog.get(name).set(image_root=str(root), evaluator_type="classification")


def register_inaturalist(name: str, json_file: str | Path, image_root: str | Path) -> None:
    """Register an annotation file of iNaturalist; it is read on first use.

    Args:
        name: name of the dataset, e.g. "inaturalist_2018_train".
        json_file: its annotations, e.g. "train2018.json".
        image_root: folder to which the file names are relative.
    """
    DatasetCatalog.register(name, lambda: load_inaturalist(name, json_file, image_root))
    MetadataCatalog.get(name).set(
        json_file=str(json_file), image_root=str(image_root), evaluator_type="classification"
    )


def load_image_folders(name: str, root: str | Path) -> list[dict[str, Any]]:
    """Load file_name, image_id and label of every image, and set the dataset's class names.

    Hidden and system folders (``.ipynb_checkpoints``, ``__MACOSX``) are not classes, and such files
    are not images.

    Raises:
        UserError: there is no class folder, or one is without images.
    """
    folders = sorted(path for path in Path(root).iterdir() if path.is_dir() and is_data(path.name))
    images = {folder.name: find_files(folder, IMAGE_SUFFIXES) for folder in folders}
    empty = [title for title, files in images.items() if not files]
    if empty or not images:
        lacking = (
            f"no image for the classes {', '.join(empty[:10])}" if images else "no class folder"
        )
        raise UserError(
            f"data set {name}: found {lacking} in {root}.\n"
            f"Expected images as {root}/CLASS/IMAGE, whose names end in "
            f"{', '.join(IMAGE_SUFFIXES)}. Unpack the class again, or remove its folder "
            "from every split."
        )
    MetadataCatalog.get(name).classes = list(images)
    return [
        {"file_name": str(path), "image_id": str(path.relative_to(root)), "label": label}
        for label, files in enumerate(images.values())
        for path in files
    ]


def load_inaturalist(
    name: str, json_file: str | Path, image_root: str | Path
) -> list[dict[str, Any]]:
    """Load file_name, image_id and label of every image, and set the dataset's class names.

    Raises:
        UserError: the file is not in iNaturalist's format, or an id is unknown or occurs twice.
    """
    content = read_json(json_file, "annotations of iNaturalist")
    check_coco_ids(content, str(json_file))
    try:
        categories = sorted(content["categories"], key=lambda category: category["id"])
        labels = {category["id"]: label for label, category in enumerate(categories)}
        files = {
            image["id"]: str(Path(image_root) / image["file_name"]) for image in content["images"]
        }
        _check_names(content)
        MetadataCatalog.get(name).classes = [category["name"] for category in categories]
        return [_labelled(annotation, files, labels) for annotation in content["annotations"]]
    except UserError as error:
        raise UserError(f"{json_file} cannot be used: {error}") from error
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{json_file} cannot be used, it is not in iNaturalist's format: "
            f"{type(error).__name__}: {error}\n"
            "Expected images with id and file_name, categories with id and name, and annotations "
            "with the image_id and category_id of these."
        ) from error


def _check_names(content: Mapping[str, Any]) -> None:
    for what, entries, field in (
        ("category", "categories", "name"),
        ("image", "images", "file_name"),
    ):
        for entry in content[entries]:
            if not is_name(entry[field]):
                raise UserError(
                    f"{what} {entry['id']} has {field} {entry[field]!r:.80}; expected one line of "
                    "text."
                )


def _labelled(
    annotation: dict[str, Any], files: dict[Any, str], labels: dict[Any, int]
) -> dict[str, Any]:
    """Return the dataset dict of an annotation."""
    for field in ("image_id", "category_id"):
        check_id_or_name(annotation[field], f"annotation {annotation['id']} has {field}")
    image_id = annotation["image_id"]
    return {
        "file_name": files[image_id],
        "image_id": image_id,
        "label": labels[annotation["category_id"]],
    }


def check_labels(names: Iterable[str], num_classes: int) -> None:
    """Check that classification datasets have the same classes, and that a classifier has as many.

    Args:
        names: names of datasets; those of other tasks always pass.
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
            f"the classifier has {num_classes} classes, but data set {first} has "
            f"{len(classes[first])}\n"
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
    lines = [
        f"data sets {first} and {second} have different classes, so their labels have different "
        "meanings:"
    ]
    for name, found in alone.items():
        lines.append(
            f"  only in {name}: {len(found)} classes, e.g. {', '.join(sorted(found)[:3]) or 'none'}"
        )
    return "\n".join([*lines, "Add the classes to one, or remove them from the other."])
