"""The images that a config trains on, whole data sets or a fraction, and how a record describes them."""

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.build import filter_images_with_only_crowd_annotations

from virtex_det.data.classes import check_same_classes, class_table, is_detector
from virtex_det.data.datasets import (
    Manifest,
    Part,
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
from virtex_det.data.datasets.objects import check_dicts, check_masks, why_no_object
from virtex_det.data.datasets.uri_datasets import SHARDS
from virtex_det.errors import UserError

logger = logging.getLogger(__name__)

# Categories named in a line.
_NAMED = 10


class TrainingPart(NamedTuple):
    """What a result record tells of the images trained on.

    Attributes:
        images: how many; 0 for shards, which are never listed whole.
        manifest_sha256: of the ids chosen, of the whole data set too, before images without objects or without a file
            are left out; of shards the hash of the rule.
        empty_categories: those without an instance among the images; none where there are no categories.
    """

    images: int
    manifest_sha256: str
    empty_categories: tuple[str, ...]


class TrainingSet(NamedTuple):
    """The images to train on, and which part of their data sets they are."""

    dicts: list[dict[str, Any]]
    manifest: Manifest
    part: TrainingPart


# By what decides it, so that a record does not load again what was loaded to train on.
_parts: dict[tuple[Any, ...], TrainingPart] = {}
# What was loaded to be checked and is not trained on yet; one at most, as it may be large.
_kept: dict[tuple[Any, ...], TrainingSet] = {}


def load_train_dicts(cfg: CfgNode) -> list[dict[str, Any]]:
    """Load DATASETS.TRAIN: of each set the part that was asked for, of it the images with something to detect.

    Of images with captions, DATASETS.CAPTIONS_PER_IMAGE; those without a file are left out.

    Raises:
        UserError: no dataset named, classes that differ between datasets, too many files missing, or no image left.
    """
    return load_training_set(cfg).dicts


def keep_training_set(cfg: CfgNode) -> TrainingSet:
    """Load the images to train on and keep them for the next ``load_training_set``, which then reads nothing."""
    _kept.clear()
    loaded = load_training_set(cfg)
    _kept[_key(cfg)] = loaded
    return loaded


def forget_training_set() -> None:
    """Forget what ``keep_training_set`` kept."""
    _kept.clear()


def load_training_set(cfg: CfgNode) -> TrainingSet:
    """Load what ``load_train_dicts`` does, with what there is to tell of it."""
    names = _names(cfg)
    if (kept := _kept.pop(_key(cfg), None)) is not None:
        return kept
    chosen = choose_images(cfg)
    dicts = [example for name in names for example in _usable(cfg, name, chosen[name])]
    if dicts and all("annotations" in example for example in dicts):
        check_same_classes(cfg, names)
        dicts = _with_objects(cfg, dicts)
    if not dicts:
        raise UserError(
            f"No image to train on in {', '.join(names)} with DATASETS.TRAIN_FRACTION {cfg.DATASETS.TRAIN_FRACTION}: "
            "the part has no image.\nRaise the fraction."
        )
    _log_classes(names[0], dicts)
    manifest = make_manifest(chosen, part_in(cfg))
    counts = count_instances(names[0], dicts)
    part = TrainingPart(len(dicts), manifest.sha256, tuple(title for title, count in counts.items() if not count))
    if part.empty_categories and _key(cfg) not in _parts:
        _warn_of_empty(cfg, part)
    _parts[_key(cfg)] = part
    return TrainingSet(dicts, manifest, part)


def check_has_objects(cfg: CfgNode, dicts: Sequence[Mapping[str, Any]]) -> None:
    """Refuse images for a detector if none of them has an object: it would learn nothing.

    Raises:
        UserError: says why there is none, and what to do.
    """
    if is_detector(cfg) and (reason := why_no_object(dicts)):
        raise UserError(_nothing_to_train_on(cfg, reason))


def training_part(cfg: CfgNode) -> TrainingPart:
    """Return what a record tells of the images trained on; they are loaded only where they have not been before.

    Raises:
        UserError: as ``load_train_dicts``, in particular where the data are not here.
    """
    if are_shards(cfg):
        return TrainingPart(0, _rule_sha256(cfg), ())
    part = _parts.get(_key(cfg))
    return part or load_training_set(cfg).part


def choose_images(cfg: CfgNode) -> dict[str, list[dict[str, Any]]]:
    """Return by name of each of DATASETS.TRAIN the images that TRAIN_FRACTION or SUBSET_FILE asks for.

    It is by image id alone, the same on every rank and machine.

    Raises:
        UserError: a data set or the split file cannot be used, or there are no categories to stratify by.
    """
    sets = {name: load_dataset(name, boxes_alone=trains_boxes_alone(cfg)) for name in _names(cfg)}
    for name, dicts in sets.items():
        remember_size(name, len(dicts))
    if cfg.DATASETS.SUBSET_FILE:
        return take_split(cfg.DATASETS.SUBSET_FILE, sets, part_in(cfg))
    return {name: take_fraction(dicts, *part_in(cfg)) for name, dicts in sets.items()}


def trains_boxes_alone(cfg: CfgNode) -> bool:
    """Return whether a config trains a detector of boxes, to which objects count whatever their polygons are."""
    return is_detector(cfg) and not cfg.MODEL.MASK_ON


def part_in(cfg: CfgNode) -> Part:
    """Return which part a config asks for."""
    return Part(cfg.DATASETS.TRAIN_FRACTION, cfg.DATASETS.SUBSET_SEED, cfg.DATASETS.SUBSET_STRATIFIED)


def count_instances(name: str, dicts: list[dict[str, Any]]) -> dict[str, int]:
    """Return how many instances, or images with the label, a data set's categories have; empty where it has none."""
    if not dicts or instances_of(dicts[0]) is None:
        return {}
    classes = MetadataCatalog.get(name).get("classes" if "label" in dicts[0] else "thing_classes") or ()
    counts = Counter(category for entry in dicts for category in instances_of(entry) or ())
    return {title: counts[number] for number, title in enumerate(classes)}


def describe_part(chosen: dict[str, list[dict[str, Any]]]) -> str:
    """Return as text what the images chosen of each data set hold."""
    dicts = [entry for of_set in chosen.values() for entry in of_set]
    counts = count_instances(next(iter(chosen)), dicts)
    lines = [f"{name}: {len(of_set)} images" for name, of_set in chosen.items()]
    if counts:
        empty = [title for title, count in counts.items() if not count]
        lines.append(f"{sum(counts.values())} instances of {len(counts) - len(empty)} categories:")
        most = sorted((title for title in counts if counts[title]), key=lambda title: -counts[title])
        lines += [f"{counts[title]:9}  {title}" for title in most]
        lines.append(f"{len(empty)} categories without an instance" + (f": {_some(empty)}" if empty else ""))
    return "\n".join(lines)


def are_shards(cfg: CfgNode) -> bool:
    """Return whether DATASETS.TRAIN names shards.

    Raises:
        UserError: it names both shards and lists, or asks of shards what needs a list.
    """
    names = cfg.DATASETS.TRAIN
    shards = [name for name in names if name.startswith(SHARDS)]
    if shards and len(shards) < len(names):
        raise UserError(
            f"DATASETS.TRAIN names shards ({', '.join(shards)}) beside data sets that are lists of images.\n"
            "Train on shards alone or on lists alone; write the one as the other to have both."
        )
    if shards and (cfg.DATASETS.SUBSET_FILE or cfg.DATASETS.SUBSET_STRATIFIED):
        raise UserError(
            "DATASETS.TRAIN names shards, which are read as a stream and never listed: DATASETS.SUBSET_FILE and "
            "SUBSET_STRATIFIED need a list.\nLeave them unset; TRAIN_FRACTION and SUBSET_SEED choose from shards."
        )
    return bool(shards)


def _names(cfg: CfgNode) -> tuple[str, ...]:
    if not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN is empty: name at least one dataset to train on.")
    return tuple(cfg.DATASETS.TRAIN)


def _with_objects(cfg: CfgNode, dicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the images with objects to train on, or all where FILTER_EMPTY_ANNOTATIONS is False."""
    if not is_detector(cfg):
        return filter_images_with_only_crowd_annotations(dicts) if _filters(cfg) else dicts
    if _filters(cfg):
        check_has_objects(cfg, dicts)
    kept = filter_images_with_only_crowd_annotations(dicts) if _filters(cfg) else dicts
    if len(kept) < len(dicts):
        logger.info(
            "%d of %d images have no object to train on and are left out (DATALOADER.FILTER_EMPTY_ANNOTATIONS True). "
            "To train on them as negatives, set DATALOADER.FILTER_EMPTY_ANNOTATIONS False",
            *(len(dicts) - len(kept), len(dicts)),
        )
    if cfg.MODEL.MASK_ON:
        check_masks(kept, cfg.INPUT.MASK_FORMAT)
    return kept


def _filters(cfg: CfgNode) -> bool:
    return cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS


def _nothing_to_train_on(cfg: CfgNode, reason: str) -> str:
    dropped = 0 if trains_boxes_alone(cfg) else sum(map(_count_without_polygon, cfg.DATASETS.TRAIN))
    if dropped:
        reason += f"; {dropped} are left out as their polygons have fewer than 3 points"
    is_part = cfg.DATASETS.TRAIN_FRACTION < 1 or cfg.DATASETS.SUBSET_FILE
    advice = "Mend the annotations"
    if is_part:
        advice = f"Raise DATASETS.TRAIN_FRACTION, now {cfg.DATASETS.TRAIN_FRACTION}, or mend the annotations"
    if dropped:
        advice += ", or train on boxes only: MODEL.MASK_ON False"
    return f"No image to train on in {', '.join(cfg.DATASETS.TRAIN)}: {reason}.\n{advice}."


def _count_without_polygon(name: str) -> int:
    """Return how many objects of a data set Detectron2 leaves out, by a second look at it: where nothing is left."""
    with_masks, with_boxes = (
        sum(len(entry.get("annotations", ())) for entry in load_dataset(name, boxes_alone=alone))
        for alone in (False, True)
    )
    return with_boxes - with_masks


def _usable(cfg: CfgNode, name: str, dicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    dicts = leave_out_missing(dicts, name, cfg.DATASETS.MAX_MISSING_FILES)
    if is_detector(cfg) and all("annotations" in example for example in dicts):
        if not is_read_by_detectron2(name) or MetadataCatalog.get(name).get("dirname"):
            check_dicts(dicts, f"data set {name}")
        return dicts
    if not all("captions" in example for example in dicts):
        return dicts
    return take_captions(dicts, cfg.DATASETS.CAPTIONS_PER_IMAGE, cfg.DATASETS.SUBSET_SEED)


def _key(cfg: CfgNode) -> tuple[Any, ...]:
    names = _names(cfg)
    check_datasets(names)
    # A name may be registered anew, which makes it another data set.
    registered = tuple(DatasetCatalog[name] for name in names)
    asked = (cfg.DATASETS.SUBSET_FILE, cfg.DATASETS.CAPTIONS_PER_IMAGE, cfg.DATASETS.MAX_MISSING_FILES)
    return names, registered, part_in(cfg), *asked, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS, cfg.MODEL.MASK_ON


def _rule_sha256(cfg: CfgNode) -> str:
    """Return the hash of what decides which samples of shards are read."""
    check_datasets(cfg.DATASETS.TRAIN)
    shards = sorted(Path(file).name for name in cfg.DATASETS.TRAIN for file in MetadataCatalog.get(name).shards)
    rule = f"is_in_fraction fraction={cfg.DATASETS.TRAIN_FRACTION} seed={cfg.DATASETS.SUBSET_SEED}"
    return hashlib.sha256("\n".join([rule, *shards]).encode()).hexdigest()


def _log_classes(name: str, dicts: list[dict[str, Any]]) -> None:
    classes = MetadataCatalog.get(name).get("thing_classes")
    if classes and all("annotations" in example for example in dicts):
        logger.info(
            "Objects of each class in the %d images to train on, crowds apart:\n%s",
            len(dicts),
            class_table(dicts, classes),
        )


def _warn_of_empty(cfg: CfgNode, part: TrainingPart) -> None:
    logger.warning(
        "%d categories have no instance among the %d images to train on (DATASETS.TRAIN_FRACTION %s): %s",
        *(len(part.empty_categories), part.images, cfg.DATASETS.TRAIN_FRACTION, _some(part.empty_categories)),
    )


def _some(titles: Sequence[str]) -> str:
    return ", ".join(titles[:_NAMED]) + (f" and {len(titles) - _NAMED} more" if len(titles) > _NAMED else "")
