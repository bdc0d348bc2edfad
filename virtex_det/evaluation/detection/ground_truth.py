"""Ground truth: checked annotation files in COCO's and LVIS's format, and registered datasets."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import Metadata, MetadataCatalog
from detectron2.data.datasets import convert_to_coco_json
from detectron2.utils.file_io import PathManager

from virtex_det.data.datasets.annotation_content import read_annotations
from virtex_det.data.datasets.by_name import find_source, read_found
from virtex_det.data.datasets.handover import HandOver
from virtex_det.data.datasets.ids import check_id, check_unique, is_name, parse_id, refuse_panoptic
from virtex_det.data.datasets.mask_places import check_mask_places
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.validation import (
    Findings,
    check_boxes,
    check_fields,
    check_frequencies,
    check_known,
    check_segmentations,
    is_number,
)
from virtex_det.evaluation.detection.voc import VOCGroundTruth

_ANNOTATION_FIELDS = {
    "coco": ("id", "image_id", "category_id", "bbox", "area", "iscrowd"),
    "lvis": ("id", "image_id", "category_id", "bbox", "area"),
}
_IMAGE_FIELDS = {
    "coco": ("id", "height", "width"),
    "lvis": ("id", "height", "width", "neg_category_ids", "not_exhaustive_category_ids"),
}
_CATEGORY_FIELDS = {"coco": ("id", "name"), "lvis": ("id", "name", "frequency")}
_AREA_BEYOND = 1.5  # times the area of the box
_ADVICE = {
    "coco": "COCO's metrics need it: area in pixels, iscrowd 0 for a single object.",
    "lvis": "LVIS's metrics need it. Evaluate a file in COCO's format as coco.",
}


class GroundTruth:
    """Images, categories and objects of an annotation file."""

    def __init__(
        self,
        content: Mapping[str, Any],
        style: str,
        source: str = "ground truth",
        names: Mapping[int, str] | None = None,
    ) -> None:
        """
        Args:
            content: ``images``, ``annotations`` and ``categories``.
            style: "coco" or "lvis".
            source: its name in messages, such as its path.
            names: of the images by their ids, where dataset dicts and detections have names.

        Raises:
            UserError: an entry lacks a field, has a duplicate id or refers to an unknown id.
        """
        self.style = style
        self.source = source
        self._numbers = {name: number for number, name in (names or {}).items()}
        try:
            # Test sets with secret annotations, such as COCO's test-dev, come without them.
            self.has_annotations = not isinstance(content, dict) or "annotations" in content
            content = content if self.has_annotations else {**content, "annotations": []}
            _check(content, style)
            fields = _CATEGORY_FIELDS[style]
            categories = [
                {field: category[field] for field in fields} for category in content["categories"]
            ]
            self.categories = sorted(categories, key=lambda category: category["id"])
            self.images = {
                image["id"]: image
                for image in sorted(content["images"], key=lambda image: image["id"])
            }
            self.image_ids = np.array(list(self.images), np.int64)
            self.sizes = np.array(
                [[image["height"], image["width"]] for image in self.images.values()], np.int64
            ).reshape(-1, 2)
            self.category_ids = np.array([category["id"] for category in self.categories], np.int64)
            self._annotations: dict[int, list[dict[str, Any]]] = {}
            self._take(content["annotations"])
        except UserError as error:
            raise UserError(f"{source}: {error}") from error

    @classmethod
    def read(cls, path: str | Path, style: str = "") -> "GroundTruth":
        """Read an annotation file.

        Args:
            path: a JSON file in the format of COCO or LVIS (v0.5, v1).
            style: "coco" or "lvis"; by default "lvis" if every category has a "frequency", else
                "coco".

        Raises:
            UserError: the file is missing, has another format, or has invalid data.
        """
        path = Path(path)
        content = read_annotations(path, f"an annotation file of {style.upper() or 'COCO or LVIS'}")
        return cls(content, style or _style_of(content), str(path))

    @cached_property
    def has_masks(self) -> bool:
        """Whether every object has a mask."""
        return all(
            "segmentation" in entry for entries in self._annotations.values() for entry in entries
        )

    @cached_property
    def category_names(self) -> dict[int, str]:
        """Names by id; if several categories share a name, the id is added."""
        names = [category["name"] for category in self.categories]
        return {
            category["id"]: name if names.count(name) == 1 else f"{name} ({category['id']})"
            for category, name in zip(self.categories, names, strict=True)
        }

    def image_key(self, image_id: int | str) -> int:
        """Return an image's id in the columns of detections: a number, or one in plain digits.

        Args:
            image_id: in a dataset dict or in a results file; the image's name, if it has one.

        Raises:
            UserError: the id is not a number, or not the name of an image.
        """
        if self._numbers:
            return self._number_of(image_id)
        key = parse_id(image_id) if isinstance(image_id, str) else int(image_id)
        if key is None:
            raise UserError(
                f"image {image_id!r:.80} is not in {self.source}, whose images have numbers; "
                "expected a number or plain "
                'digits, e.g. "12".'
            )
        return key

    def _number_of(self, name: int | str) -> int:
        if name not in self._numbers:
            raise UserError(
                f"image {name!r:.200} is not in {self.source}, whose {len(self._numbers)} images "
                f"have names such as {next(iter(self._numbers))!r}."
            )
        return self._numbers[str(name)]

    def annotations_of(self, image_id: int) -> Sequence[dict[str, Any]]:
        """Return the objects of an image, as in the file."""
        return self._annotations.get(image_id, ())

    def sizes_of(self, image_ids: np.ndarray) -> np.ndarray:
        """Return height and width of known images. # shape: (N, 2)"""
        return self.sizes[np.searchsorted(self.image_ids, image_ids)]

    def check_masks(self) -> None:
        """Check that every object has a valid mask.

        Raises:
            UserError: the mask of an annotation is missing or invalid.
        """
        entries = list(itertools.chain.from_iterable(self._annotations.values()))
        try:
            check_fields(
                entries,
                ("segmentation",),
                "annotation",
                "Masks cannot be measured; measure boxes only.",
            )
            image_ids = np.array([entry["image_id"] for entry in entries], np.int64)
            check_segmentations(entries, self.sizes_of(image_ids))
            self._check_polygons_at_boxes(entries)
        except UserError as error:
            raise UserError(f"{self.source}: {error}") from error

    def _check_polygons_at_boxes(self, entries: list[dict[str, Any]]) -> None:
        found = [entry for entry in entries if isinstance(entry["segmentation"], list)]
        boxes = np.array([entry["bbox"] for entry in found], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = [entry["segmentation"] for entry in found]
        check_mask_places(masks, boxes, lambda place: f"annotation {found[place]['id']}", "masks")

    def _take(self, annotations: list[dict[str, Any]]) -> None:
        image_ids = np.array([entry["image_id"] for entry in annotations], np.int64)
        category_ids = np.array([entry["category_id"] for entry in annotations], np.int64)

        def name(place: int) -> str:
            return f"annotation {annotations[place]['id']}"

        check_known(image_ids, self.image_ids, "image", name)
        check_known(category_ids, self.category_ids, "category", name)
        findings = Findings()
        check_boxes(_boxes(annotations), self.sizes_of(image_ids), name, findings)
        zero_id = np.array([entry["id"] == 0 for entry in annotations])
        findings.note(
            "annotation with id 0, which pycocotools never matches (here it counts)", zero_id, name
        )
        _check_areas(annotations, name, findings)
        findings.tell(self.source)
        for entry in annotations:
            self._annotations.setdefault(entry["image_id"], []).append(entry)


def _check_areas(
    annotations: list[dict[str, Any]], name: Callable[[int], str], findings: Findings
) -> None:
    """Count areas that cannot be: APs, APm and APl go by them."""
    areas = np.array([entry["area"] for entry in annotations], np.float64)
    box_areas = _boxes(annotations)[:, 2:].prod(axis=1)
    findings.note(
        "area 0 of a box that is not empty, which counts as small in APs, APm and APl",
        (areas == 0) & (box_areas > 0),
        name,
    )
    findings.note(
        "area larger than its box, by which APs, APm and APl count it",
        areas > _AREA_BEYOND * box_areas + 1,
        name,
    )


def _style_of(content: Any) -> str:
    categories = content.get("categories") if isinstance(content, dict) else None
    if not isinstance(categories, list) or not categories:
        return "coco"
    has_frequencies = all(isinstance(each, dict) and "frequency" in each for each in categories)
    return "lvis" if has_frequencies else "coco"


def _check(content: Any, style: str) -> None:
    parts = ("images", "annotations", "categories")
    if style not in _ADVICE:
        raise UserError(
            f"the style of annotations is {style!r}; expected one of: {', '.join(_ADVICE)}."
        )
    if not isinstance(content, dict) or not all(
        isinstance(content.get(part), list) for part in parts
    ):
        raise UserError(
            f"these are not annotations; expected the lists {', '.join(parts)}.\n"
            "Name a results file as the predictions, not as the annotations."
        )
    refuse_panoptic(content["annotations"], "the file")
    for part, fields in zip(
        parts, (_IMAGE_FIELDS, _ANNOTATION_FIELDS, _CATEGORY_FIELDS), strict=True
    ):
        what = part.removesuffix("s") if part != "categories" else "category"
        check_fields(content[part], fields[style], what, _ADVICE[style])
        for entry in content[part]:
            check_id(entry["id"], f"{what} has id")
        check_unique([entry["id"] for entry in content[part]], what)
    if not content["images"] or not content["categories"]:
        raise UserError("there are no images or no categories, so there is nothing to measure.")
    for image in content["images"]:
        if not all(
            type(image[side]) is int and 0 < image[side] < 2**31 for side in ("height", "width")
        ):
            raise UserError(
                f"image {image['id']} has width {image['width']!r} and height "
                f"{image['height']!r}; expected integers from 1 to {2**31 - 1}."
            )
    for category in content["categories"]:
        if not is_name(category["name"]):
            raise UserError(
                f"category {category['id']} has name {category['name']!r:.80}; expected text on "
                "one line."
            )
    for entry in content["annotations"]:
        _check_annotation(entry, style)
    if style == "lvis":
        check_frequencies(content["categories"])
        known = {category["id"] for category in content["categories"]}
        for image in content["images"]:
            _check_sets(image, known)


def _check_annotation(entry: dict[str, Any], style: str) -> None:
    for field in ("image_id", "category_id"):
        check_id(entry[field], f"annotation {entry['id']} has {field}")
    if style == "coco" and entry["iscrowd"] not in (0, 1):
        raise UserError(
            f"annotation {entry['id']} has iscrowd {entry['iscrowd']!r}; expected 0 or 1."
        )
    if style == "lvis" and entry.get("ignore"):
        raise UserError(
            f"annotation {entry['id']} has ignore set, which LVIS does not have. Remove it."
        )


def _check_sets(image: dict[str, Any], known: Collection[int]) -> None:
    for field in ("neg_category_ids", "not_exhaustive_category_ids"):
        if not isinstance(image[field], list):
            raise UserError(
                f"image {image['id']} has {field} {image[field]!r:.80}; expected a list of "
                "category ids."
            )
        for value in image[field]:
            check_id(value, f"image {image['id']} has in {field}")
            if value not in known:
                raise UserError(
                    f"image {image['id']} has in {field} {value}, which the {len(known)} "
                    "categories do not have."
                )


def _boxes(annotations: list[dict[str, Any]]) -> np.ndarray:
    """Check boxes and areas; return the boxes. # shape: (N, 4)"""
    for entry in annotations:
        box, area = entry["bbox"], entry["area"]
        # NaN and infinity get their own error later.
        kinds = isinstance(box, list) and all(
            type(value) is float or is_number(value) for value in box
        )
        if not kinds or len(box) != 4:
            raise UserError(
                f"annotation {entry['id']} has bbox {box!r:.80}; expected [x, y, width, height]."
            )
        if not is_number(area) or area < 0:
            raise UserError(
                f"annotation {entry['id']} has area {area!r:.80}; expected a number of pixels."
            )
    return np.array([entry["bbox"] for entry in annotations], np.float64).reshape(-1, 4)


_read = HandOver()


def read_truth(dataset_name: str, output_folder: str | Path) -> GroundTruth | VOCGroundTruth:
    """Read and check the annotations of a registered dataset.

    Args:
        dataset_name: its metadata names the annotation file; without one, a file is made of its
            dicts.
        output_folder: folder for that file.

    Raises:
        UserError: an annotation is invalid.
    """
    if (kept := _read.take(dataset_name)) is not None:
        return kept
    metadata = MetadataCatalog.get(dataset_name)
    if find_source(dataset_name):
        return _truth_by_name(dataset_name)
    if metadata.evaluator_type == "pascal_voc":
        return VOCGroundTruth.read(
            metadata.dirname, metadata.split, metadata.thing_classes, metadata.year
        )
    return GroundTruth.read(annotation_file(dataset_name, output_folder), metadata.evaluator_type)


def _truth_by_name(name: str) -> GroundTruth | VOCGroundTruth:
    metadata, found = MetadataCatalog.get(name), read_found(name)
    kind, source = metadata.evaluator_type, str(metadata.place)
    if kind == "pascal_voc":
        return VOCGroundTruth.of_found(found, metadata.year, source)
    return GroundTruth(found.content, kind, source, found.names)


def keep_truth(dataset_name: str, truth: GroundTruth | VOCGroundTruth) -> None:
    """Keep a dataset's ground truth for the next ``read_truth``, which then reads nothing."""
    _read.keep(dataset_name, truth)


def forget_truths() -> None:
    """Forget everything that ``keep_truth`` kept."""
    _read.forget()


def annotation_file(dataset_name: str, output_folder: str | Path) -> str:
    """Return the path of a dataset's annotation file, made of its dicts where there is none."""
    json_file = MetadataCatalog.get(dataset_name).get("json_file")
    if json_file is None:
        json_file = str(Path(output_folder) / f"{dataset_name}_coco_format.json")
        try:
            convert_to_coco_json(dataset_name, json_file, allow_cached=False)
        except (
            TypeError,
            ValueError,
            LookupError,
            NotImplementedError,
            AssertionError,
            AttributeError,
        ) as error:
            raise UserError(
                f"data set {dataset_name}: its dicts cannot be converted to COCO's format for "
                f"evaluation: {type(error).__name__}: {error!s:.300}\n"
                "Give each object the types in docs/your_own_data.md, plain lists and numbers "
                "rather than NumPy's."
            ) from error
    return PathManager.get_local_path(json_file)


def class_ids(metadata: Metadata) -> np.ndarray:
    """Return the annotation file's id of each class of a dataset, as Detectron2's evaluators do."""
    to_class = metadata.get("thing_dataset_id_to_contiguous_id")
    if to_class is not None:
        return np.array(sorted(to_class, key=to_class.__getitem__), dtype=np.int64)
    return np.arange(len(metadata.thing_classes)) + (metadata.evaluator_type == "lvis")
