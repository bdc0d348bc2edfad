"""Checks that DATASETS.TEST can be evaluated: pictures, ground truth, ids, classes, evaluator."""

import logging
import tempfile
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from virtex_det.data.build import check_test_loader, reads_images
from virtex_det.data.classes import is_detector
from virtex_det.data.datasets import find_missing, load_dataset
from virtex_det.data.datasets.annotation_files import is_users_own
from virtex_det.data.datasets.by_name import find_source
from virtex_det.data.datasets.dataset_dicts import check_sizes
from virtex_det.data.datasets.missing_files import list_missing, refuse_addresses
from virtex_det.data.datasets.objects import check_dicts
from virtex_det.data.image_checks import check_images
from virtex_det.engine.preflight.expected import check_expected_names
from virtex_det.errors import UserError
from virtex_det.evaluation.build import REFERENCE_EVALUATORS, check_metrics_library, evaluator_kind
from virtex_det.evaluation.detection.average_precision import AveragePrecision
from virtex_det.evaluation.detection.ground_truth import (
    GroundTruth,
    class_ids,
    keep_truth,
    read_truth,
)
from virtex_det.evaluation.detection.validation import is_number
from virtex_det.evaluation.detection.voc import VOCGroundTruth

logger = logging.getLogger(__name__)

_KEYPOINTS_OF_COCO = 17

Truth = GroundTruth | VOCGroundTruth


def check_test_set(
    cfg: CfgNode, name: str, *, own_evaluator: bool = True, keep: bool = False
) -> list[dict[str, Any]]:
    """Check that a model can be evaluated on a data set.

    Args:
        cfg: of the model.
        name: a registered data set.
        own_evaluator: it is evaluated by ``build_evaluator``; False skips what only that needs.
        keep: keep the ground truth for the evaluation, which then does not read it again.

    Returns:
        The images.

    Raises:
        UserError: a picture is missing or cannot be read, or the annotations are invalid for the
            metrics.
    """
    dicts = load_dataset(name)
    if reads_images(cfg):
        refuse_addresses(dicts, name)
    _check_pictures(name, dicts)
    if reads_images(cfg):
        # A tenth of the images that training reads; a full schedule on COCO checks all 5000.
        whole = 0 if keep else cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH // 10
        check_images(name, dicts, cfg.INPUT.MAX_VALUE, whole)
    if own_evaluator:
        _check_evaluator(cfg, name, dicts, keep)
    check_test_loader(cfg, name, dicts)
    return dicts


def _check_pictures(name: str, dicts: Sequence[dict[str, Any]]) -> None:
    if missing := find_missing(dicts):
        raise UserError(
            f"data set {name}: {len(missing)} of {len(dicts)} images have no file, e.g.\n"
            f"{list_missing(missing)}\n"
            "Results on a part of the images cannot be compared. Complete the folder, or remove "
            "these images from the annotations."
        )


def _check_evaluator(cfg: CfgNode, name: str, dicts: Sequence[dict[str, Any]], keep: bool) -> None:
    kind = evaluator_kind(name)
    finds_objects = is_detector(cfg)
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        raise UserError(
            f"DATASETS.TEST names {name}, but semantic segmentation, the task of "
            "SemanticSegmentor, is not evaluated here.\n"
            "Set DATASETS.TEST (), or let build_evaluator of a subclass of Trainer return "
            "detectron2.evaluation.SemSegEvaluator."
        )
    if finds_objects and kind not in REFERENCE_EVALUATORS:
        raise UserError(
            f"{cfg.MODEL.META_ARCHITECTURE} finds objects, but data set {name} is evaluated as "
            f"{kind}: there would be nothing to measure.\n"
            "Set DATASETS.TEST to data sets with boxes, such as coco_2017_val."
        )
    if finds_objects:
        check_metrics_library(cfg)
        _check_truth(cfg, name, dicts, keep)
    else:
        check_expected_names(cfg, name, None)
    if kind == "classification":
        _check_labels(name, dicts)


def _check_labels(name: str, dicts: Sequence[dict[str, Any]]) -> None:
    classes = MetadataCatalog.get(name).get("classes") or ()
    for entry in dicts:
        label = entry.get("label")
        if not isinstance(label, int) or not 0 <= label < len(classes):
            raise UserError(
                f"data set {name}: image {entry['image_id']} has label {label!r}; expected the "
                f"number of one of its {len(classes)} classes, from 0 to {len(classes) - 1}."
            )


def _check_truth(cfg: CfgNode, name: str, dicts: Sequence[dict[str, Any]], keep: bool) -> None:
    if not MetadataCatalog.get(name).get("thing_classes"):
        raise UserError(
            f"data set {name} has no class names, which its evaluation needs.\n"
            "Name the classes where you register it: "
            f'MetadataCatalog.get("{name}").set(thing_classes=[...])'
        )
    if evaluator_kind(name) == "pascal_voc" and not find_source(name):
        _check_voc_metadata(name)
    if MetadataCatalog.get(name).get("json_file") is None and is_users_own(name):
        check_sizes(dicts, f"data set {name}")
        check_dicts([entry for entry in dicts if "annotations" in entry], f"data set {name}")
    with tempfile.TemporaryDirectory() as folder:
        truth = read_truth(name, folder)
    _check_images(name, dicts, truth)
    if isinstance(truth, GroundTruth):
        if cfg.MODEL.KEYPOINT_ON and truth.has_annotations:
            _check_keypoints(cfg, name, truth)
        _check_categories(name, truth)
        _check_metrics(cfg, name, truth)
    if cfg.TEST.EXPECTED_RESULTS and truth.has_annotations:
        check_expected_names(cfg, name, truth)
    if keep:
        keep_truth(name, truth)


def _check_voc_metadata(name: str) -> None:
    metadata = MetadataCatalog.get(name)
    if missing := [key for key in ("dirname", "split", "year") if not metadata.get(key)]:
        raise UserError(
            f"data set {name} has evaluator_type 'pascal_voc', but its metadata has no "
            f"{', '.join(missing)}: VOC's metrics need a folder of XML files.\n"
            "Register it by register_pascal_voc, or data in COCO's format with evaluator_type "
            '"coco".'
        )


def _check_keypoints(cfg: CfgNode, name: str, truth: GroundTruth) -> None:
    """Check that all objects have the model's keypoints, which pycocotools does not check."""
    points, sigmas = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS, cfg.TEST.KEYPOINT_OKS_SIGMAS
    number = len(sigmas) or _KEYPOINTS_OF_COCO
    if number != points:
        default = "" if sigmas else " (COCO's, the default)"
        raise UserError(
            f"the model finds {points} keypoints, and TEST.KEYPOINT_OKS_SIGMAS has {number} numbers"
            f"{default}.\nSet it to {points} numbers, the spread of each keypoint "
            "(https://cocodataset.org/#keypoints-eval)."
        )
    for entry in (entry for image_id in truth.images for entry in truth.annotations_of(image_id)):
        found, count = entry.get("keypoints"), entry.get("num_keypoints")
        if (
            not isinstance(found, list)
            or len(found) != 3 * points
            or not all(map(is_number, found))
        ):
            raise UserError(
                f"{truth.source}: annotation {entry['id']} has keypoints {found!r:.80}; expected "
                f"{3 * points} numbers: x, y and visibility of the model's {points} keypoints.\n"
                f"Evaluate {name} with MODEL.KEYPOINT_ON False, or on annotations with keypoints."
            )
        if type(count) is not int:
            raise UserError(
                f"{truth.source}: annotation {entry['id']} has num_keypoints {count!r:.80}; "
                "expected how many of its keypoints have visibility 1 or 2. COCO's evaluation "
                "skips objects without such keypoints."
            )


def _check_images(name: str, dicts: Sequence[dict[str, Any]], truth: Truth) -> None:
    """Check that each image is in the ground truth, to which its id leads."""
    keys = [truth.image_key(entry["image_id"]) for entry in dicts]
    known = truth.images if isinstance(truth, GroundTruth) else range(len(truth.images))
    for key, entry in zip(keys, dicts, strict=True):
        if key not in known:
            raise UserError(
                f"data set {name}: image {entry['image_id']!r} is not in its ground truth, "
                f"{truth.source}.\n"
                'Let "json_file" in its metadata name the annotations that it was loaded from.'
            )
    if len(keys) < len(known):
        logger.warning(
            "data set %s has %d of the %d images of %s: the others count as images without "
            "detections",
            name,
            len(keys),
            len(known),
            truth.source,
        )


def _check_categories(name: str, truth: GroundTruth) -> None:
    """Check that each class number leads to the category of the same name in the annotations."""
    metadata = MetadataCatalog.get(name)
    ids, titles = class_ids(metadata).tolist(), metadata.thing_classes
    if len(ids) != len(titles):
        raise UserError(
            f"data set {name} has {len(titles)} classes (thing_classes) and {len(ids)} category "
            "ids (thing_dataset_id_to_contiguous_id) in its metadata; expected one id per class."
        )
    in_file = {category["id"]: category["name"] for category in truth.categories}
    id_of = {title: category for category, title in in_file.items()}
    for number, (category, title) in enumerate(zip(ids, titles, strict=True)):
        is_other = truth.style == "coco" and title != in_file.get(category) and title in id_of
        if category not in in_file or is_other:
            named = repr(in_file[category]) if category in in_file else "missing"
            raise UserError(
                f"data set {name}: class {number} is {title!r} (category id {category}), but in "
                f"{truth.source} that id is {named}.\n"
                "Detections would count for another class. Set thing_classes in the order of the "
                "category ids, or let thing_dataset_id_to_contiguous_id lead from each id to its "
                "place in thing_classes."
            )


def _check_metrics(cfg: CfgNode, name: str, truth: GroundTruth) -> None:
    if not truth.has_annotations:
        logger.warning(
            "data set %s has no annotations: its evaluation writes a results file without metrics",
            name,
        )
        return
    if not any(map(truth.annotations_of, truth.images)):
        logger.warning(
            "data set %s has %d images and no object: its AP is NaN", name, len(truth.images)
        )
    if cfg.TEST.METRICS_LIBRARY == "reference":
        return truth.check_masks() if cfg.MODEL.MASK_ON else None
    tasks = ["bbox", *(["segm"] if cfg.MODEL.MASK_ON and truth.has_masks else [])]
    if cfg.MODEL.MASK_ON and not truth.has_masks:
        _check_all_lack_masks(name, truth)
        logger.warning("data set %s has objects without masks: only boxes are evaluated", name)
    limits = tuple(cfg.TEST.EXTRA_MAX_DETECTIONS)
    for task in tasks:
        AveragePrecision(truth, task, extra_max_detections=limits, boundary=cfg.TEST.BOUNDARY_AP)


def _check_all_lack_masks(name: str, truth: GroundTruth) -> None:
    """Refuse annotations if only a part has masks: the rest would leave no mask AP."""
    entries = [entry for image_id in truth.images for entry in truth.annotations_of(image_id)]
    lacking = [entry for entry in entries if "segmentation" not in entry]
    if len(lacking) < len(entries):
        raise UserError(
            f"data set {name}: {len(lacking)} of {len(entries)} annotations of {truth.source} "
            f"have no segmentation, e.g. annotation {lacking[0]['id']}, so masks could not be "
            "measured.\n"
            "Add these masks; or evaluate boxes alone, with MODEL.MASK_ON False or on annotations "
            "without masks."
        )
