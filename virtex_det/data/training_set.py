"""A config's training images, whole datasets or a part, and their entry in result records."""

import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.build import (
    filter_images_with_few_keypoints,
    filter_images_with_only_crowd_annotations,
)

from virtex_det.data.classes import check_same_classes, class_table, is_detector
from virtex_det.data.datasets import (
    Manifest,
    Subset,
    check_datasets,
    instances_of,
    leave_out_missing,
    load_dataset,
    make_manifest,
    remember_size,
    take_captions,
    take_fraction,
    take_split,
)
from virtex_det.data.datasets.annotation_files import is_read_by_detectron2
from virtex_det.data.datasets.by_name import find_source
from virtex_det.data.datasets.objects import check_dicts, check_masks, why_no_object
from virtex_det.data.datasets.uri_datasets import SHARDS
from virtex_det.errors import UserError

logger = logging.getLogger(__name__)

# Categories named in a message.
_NAMED = 10


class TrainingPart(NamedTuple):
    """The entry of the training images in a result record.

    Attributes:
        images: number of images; 0 for shards, which are never listed.
        manifest_sha256: hash of the chosen ids (also for whole datasets), including images without
            objects or without a file; for shards hash of the rule that chooses samples.
        empty_categories: categories without an instance in these images.
    """

    images: int
    manifest_sha256: str
    empty_categories: tuple[str, ...]


class TrainingSet(NamedTuple):
    """Training images, and the part of their datasets that they are.

    Attributes:
        dicts: of all datasets.
        manifest: the chosen ids.
        part: the entry in result records.
        files: the paths of the images, by dataset.
    """

    dicts: list[dict[str, Any]]
    manifest: Manifest
    part: TrainingPart
    files: dict[str, set[str]]


# By the settings that decide it, so that a record does not load the training images again.
_parts: dict[tuple[Any, ...], TrainingPart] = {}
# Images loaded for a check, until training takes them; at most one set, as it may be large.
_kept: dict[tuple[Any, ...], TrainingSet] = {}


def load_train_dicts(cfg: CfgNode) -> list[dict[str, Any]]:
    """Load the chosen part of DATASETS.TRAIN, without images that have no object to detect.

    Images without a file are left out. Captions are limited to DATASETS.CAPTIONS_PER_IMAGE.

    Raises:
        UserError: no dataset is named, datasets have different classes, too many files are missing,
            or no image remains.
    """
    return load_training_set(cfg).dicts


def keep_training_set(cfg: CfgNode) -> TrainingSet:
    """Load the training images and keep them for the next ``load_training_set``."""
    _kept.clear()
    loaded = load_training_set(cfg)
    _kept[_key(cfg)] = loaded
    return loaded


def forget_training_set() -> None:
    """Forget the images of ``keep_training_set``."""
    _kept.clear()


def load_training_set(cfg: CfgNode) -> TrainingSet:
    """Load the images of ``load_train_dicts``, with their manifest and record entry."""
    names = _names(cfg)
    if (kept := _kept.pop(_key(cfg), None)) is not None:
        return kept
    chosen = choose_images(cfg)
    usable = {name: _usable(cfg, name, chosen[name]) for name in dict.fromkeys(names)}
    dicts = [example for name in names for example in usable[name]]
    if dicts and all("annotations" in example for example in dicts):
        check_same_classes(cfg, names)
        dicts = _with_objects(cfg, dicts)
    if not dicts:
        raise UserError(_no_images(cfg))
    _log_classes(names[0], dicts)
    manifest = make_manifest(chosen, subset_in(cfg))
    counts = count_instances(names[0], dicts)
    part = TrainingPart(
        len(dicts), manifest.sha256, tuple(title for title, count in counts.items() if not count)
    )
    if part.empty_categories and _key(cfg) not in _parts:
        _warn_of_empty(cfg, part)
    _parts[_key(cfg)] = part
    return TrainingSet(dicts, manifest, part, {name: image_files(usable[name]) for name in usable})


def image_files(dicts: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the paths of the images of dataset dicts; those in tar files have none."""
    return {
        str(entry["file_name"])
        for entry in dicts
        if "file_name" in entry and "encoded_image" not in entry
    }


def check_has_objects(cfg: CfgNode, dicts: Sequence[Mapping[str, Any]]) -> None:
    """Refuse training images for a detector if none has an object.

    Raises:
        UserError: no image has an object; the message says why.
    """
    if is_detector(cfg) and (reason := why_no_object(dicts)):
        raise UserError(_nothing_to_train_on(cfg, reason))


def training_part(cfg: CfgNode) -> TrainingPart:
    """Return the record entry of the training images, loading them if necessary.

    Raises:
        UserError: as ``load_train_dicts``, for instance if the data is missing.
    """
    if are_shards(cfg):
        return TrainingPart(0, _rule_sha256(cfg), ())
    part = _parts.get(_key(cfg))
    return part or load_training_set(cfg).part


def choose_images(cfg: CfgNode) -> dict[str, list[dict[str, Any]]]:
    """Return the images that TRAIN_FRACTION or SUBSET_FILE chooses, by dataset of DATASETS.TRAIN.

    The choice depends on the image ids only, and is the same on every rank and machine.

    Raises:
        UserError: a dataset or the split file is invalid, or there are no categories to stratify
            by.
    """
    sets = {name: load_dataset(name, boxes_alone=trains_boxes_alone(cfg)) for name in _names(cfg)}
    for name, dicts in sets.items():
        remember_size(name, len(dicts))
    if cfg.DATASETS.SUBSET_FILE:
        return take_split(cfg.DATASETS.SUBSET_FILE, sets, subset_in(cfg))
    return {name: take_fraction(dicts, *subset_in(cfg)) for name, dicts in sets.items()}


def trains_boxes_alone(cfg: CfgNode) -> bool:
    """Return whether a config trains a detector without masks, which ignores polygons."""
    return is_detector(cfg) and not cfg.MODEL.MASK_ON


def subset_in(cfg: CfgNode) -> Subset:
    """Return the part that a config chooses."""
    return Subset(
        cfg.DATASETS.TRAIN_FRACTION, cfg.DATASETS.SUBSET_SEED, cfg.DATASETS.SUBSET_STRATIFIED
    )


def count_instances(name: str, dicts: list[dict[str, Any]]) -> dict[str, int]:
    """Return the number of instances or labelled images per category, if there are any."""
    if not dicts or instances_of(dicts[0]) is None:
        return {}
    classes = (
        MetadataCatalog.get(name).get("classes" if "label" in dicts[0] else "thing_classes") or ()
    )
    counts = Counter(category for entry in dicts for category in instances_of(entry) or ())
    return {title: counts[number] for number, title in enumerate(classes)}


def describe_part(chosen: dict[str, list[dict[str, Any]]]) -> str:
    """Return a description of the chosen images as text."""
    dicts = list(itertools.chain.from_iterable(chosen.values()))
    counts = count_instances(next(iter(chosen)), dicts)
    lines = [f"{name}: {len(of_set)} images" for name, of_set in chosen.items()]
    if counts:
        empty = [title for title, count in counts.items() if not count]
        lines.append(f"{sum(counts.values())} instances of {len(counts) - len(empty)} categories:")
        most = sorted(
            (title for title in counts if counts[title]), key=lambda title: -counts[title]
        )
        lines += [f"{counts[title]:9}  {title}" for title in most]
        lines.append(
            f"{len(empty)} categories without an instance" + (f": {_some(empty)}" if empty else "")
        )
    return "\n".join(lines)


def are_shards(cfg: CfgNode) -> bool:
    """Return whether DATASETS.TRAIN names shards.

    Raises:
        UserError: it names both shards and lists, or the config needs a list for its shards.
    """
    names = cfg.DATASETS.TRAIN
    shards = [name for name in names if name.startswith(SHARDS)]
    if shards and len(shards) < len(names):
        raise UserError(
            f"DATASETS.TRAIN names shards ({', '.join(shards)}) and data sets that are lists of "
            "images.\n"
            "Train on shards only or on lists only; convert one of them to train on both."
        )
    if shards and (cfg.DATASETS.SUBSET_FILE or cfg.DATASETS.SUBSET_STRATIFIED):
        raise UserError(
            "DATASETS.TRAIN names shards, which are read as a stream and never listed, but "
            "DATASETS.SUBSET_FILE and SUBSET_STRATIFIED need a list.\n"
            "Leave them unset; TRAIN_FRACTION and SUBSET_SEED work with shards."
        )
    return bool(shards)


def _names(cfg: CfgNode) -> tuple[str, ...]:
    if not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN is empty: name at least one dataset to train on.")
    return tuple(cfg.DATASETS.TRAIN)


def _with_objects(cfg: CfgNode, dicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the images with objects, or all if FILTER_EMPTY_ANNOTATIONS is False."""
    if not is_detector(cfg):
        return filter_images_with_only_crowd_annotations(dicts) if _filters(cfg) else dicts
    if _filters(cfg):
        check_has_objects(cfg, dicts)
    kept = filter_images_with_only_crowd_annotations(dicts) if _filters(cfg) else dicts
    if len(kept) < len(dicts):
        logger.info(
            "%d of %d images have no object to train on and are left out "
            "(DATALOADER.FILTER_EMPTY_ANNOTATIONS True). To train on them as negatives, set "
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS False",
            len(dicts) - len(kept),
            len(dicts),
        )
    if cfg.MODEL.MASK_ON:
        check_masks(kept, cfg.INPUT.MASK_FORMAT)
    return _with_keypoints(cfg, kept) if cfg.MODEL.KEYPOINT_ON else kept


def _with_keypoints(cfg: CfgNode, dicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out images with fewer visible keypoints than MIN_KEYPOINTS_PER_IMAGE, as Detectron2.

    If no image has any, all stay, and a later check names the reason.
    """
    fewest = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
    kept = filter_images_with_few_keypoints(dicts, fewest) if fewest > 0 else dicts
    if not kept:
        return dicts
    if len(kept) < len(dicts):
        logger.info(
            "%d of %d images have fewer than %d visible keypoints and are left out "
            "(MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE)",
            len(dicts) - len(kept),
            len(dicts),
            fewest,
        )
    return kept


def _filters(cfg: CfgNode) -> bool:
    return cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS


def _no_images(cfg: CfgNode) -> str:
    message = f"No image to train on in {', '.join(cfg.DATASETS.TRAIN)}"
    if _is_part(cfg):
        return (
            f"{message} with DATASETS.TRAIN_FRACTION {cfg.DATASETS.TRAIN_FRACTION}: the part has "
            "no image with a file and an object.\nRaise the fraction."
        )
    return (
        f"{message}: every image lacks its file or has no object.\n"
        "Complete the folder of images, or correct the annotations."
    )


def _is_part(cfg: CfgNode) -> bool:
    return cfg.DATASETS.TRAIN_FRACTION < 1 or bool(cfg.DATASETS.SUBSET_FILE)


def _nothing_to_train_on(cfg: CfgNode, reason: str) -> str:
    dropped = 0 if trains_boxes_alone(cfg) else sum(map(_count_without_polygon, cfg.DATASETS.TRAIN))
    if dropped:
        reason += f"; {dropped} are left out because their polygons have fewer than 3 points"
    advice = "Correct the annotations"
    if _is_part(cfg):
        advice = (
            f"Raise DATASETS.TRAIN_FRACTION, now {cfg.DATASETS.TRAIN_FRACTION}, or correct the "
            "annotations"
        )
    if dropped:
        advice += ", or train on boxes only: MODEL.MASK_ON False"
    return f"No image to train on in {', '.join(cfg.DATASETS.TRAIN)}: {reason}.\n{advice}."


def _count_without_polygon(name: str) -> int:
    """Return how many objects of a dataset Detectron2 leaves out, by loading it again."""
    with_masks, with_boxes = (
        sum(len(entry.get("annotations", ())) for entry in load_dataset(name, boxes_alone=alone))
        for alone in (False, True)
    )
    return with_boxes - with_masks


def _usable(cfg: CfgNode, name: str, dicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    dicts = leave_out_missing(dicts, name, cfg.DATASETS.MAX_MISSING_FILES)
    if is_detector(cfg) and all("annotations" in example for example in dicts):
        is_checked = is_read_by_detectron2(name) and not MetadataCatalog.get(name).get("dirname")
        if not (is_checked or find_source(name)):
            check_dicts(dicts, f"data set {name}")
        return dicts
    if not all("captions" in example for example in dicts):
        return dicts
    return take_captions(dicts, cfg.DATASETS.CAPTIONS_PER_IMAGE, cfg.DATASETS.SUBSET_SEED)


def _key(cfg: CfgNode) -> tuple[Any, ...]:
    names = _names(cfg)
    check_datasets(names)
    # A name that is registered again is another dataset.
    registered = tuple(DatasetCatalog[name] for name in names)
    head = cfg.MODEL.ROI_KEYPOINT_HEAD
    asked = (
        cfg.DATASETS.SUBSET_FILE,
        cfg.DATASETS.CAPTIONS_PER_IMAGE,
        cfg.DATASETS.MAX_MISSING_FILES,
        cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        cfg.MODEL.MASK_ON,
        head.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0,
    )
    return names, registered, subset_in(cfg), *asked


def _rule_sha256(cfg: CfgNode) -> str:
    """Return the hash of the rule that chooses samples of shards."""
    check_datasets(cfg.DATASETS.TRAIN)
    shards = sorted(
        Path(file).name for name in cfg.DATASETS.TRAIN for file in MetadataCatalog.get(name).shards
    )
    rule = f"is_in_fraction fraction={cfg.DATASETS.TRAIN_FRACTION} seed={cfg.DATASETS.SUBSET_SEED}"
    return hashlib.sha256("\n".join([rule, *shards]).encode()).hexdigest()


def _log_classes(name: str, dicts: list[dict[str, Any]]) -> None:
    classes = MetadataCatalog.get(name).get("thing_classes")
    if classes and all("annotations" in example for example in dicts):
        logger.info(
            "Objects of each class in the %d training images, without crowds:\n%s",
            len(dicts),
            class_table(dicts, classes),
        )


def _warn_of_empty(cfg: CfgNode, part: TrainingPart) -> None:
    logger.warning(
        "%d categories have no instance in the %d training images (DATASETS.TRAIN_FRACTION %s): %s",
        len(part.empty_categories),
        part.images,
        cfg.DATASETS.TRAIN_FRACTION,
        _some(part.empty_categories),
    )


def _some(titles: Sequence[str]) -> str:
    return ", ".join(titles[:_NAMED]) + (
        f" and {len(titles) - _NAMED} more" if len(titles) > _NAMED else ""
    )
