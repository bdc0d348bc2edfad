"""Loaders for training and evaluation, from a config."""

import os
from collections.abc import Sequence
from typing import Any

import torch.utils.data as torchdata
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, MetadataCatalog, build_detection_test_loader
from detectron2.data.build import (
    filter_images_with_only_crowd_annotations,
    print_instances_class_histogram,
    trivial_batch_collator,
)
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.detection_utils import check_metadata_consistency
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from fvcore.common.registry import Registry

from virtex_det.data.datasets import (
    check_datasets,
    leave_out_missing,
    load_dataset,
    take_captions,
    take_fraction,
)
from virtex_det.data.datasets.by_name import SHARDS
from virtex_det.data.examples import Mapper, PlacesFrom, SeededExamples
from virtex_det.data.left_out import WatchedBatches
from virtex_det.data.shard_stream import Choice, ShardExamples
from virtex_det.data.workers import UnpackedBatches, pack
from virtex_det.errors import UserError

MAPPER_REGISTRY = Registry("MAPPER")
MAPPER_REGISTRY.__doc__ = "Classes that, called with (cfg, is_train), give a function from dataset dict to example."


def build_train_loader(cfg: CfgNode, start_iter: int = 0) -> WatchedBatches:
    """Build the endless loader of training batches that DATASETS, DATALOADER and INPUT describe.

    With SEED set, batch k holds the same pixels and captions in every run of a config, whatever the number of workers
    and of processes (theirs together are one process's), and whether resumed or not. Unlike in Detectron2's loader the
    sampler runs once, in this process, and not in each worker once per image of a batch: that makes a late start cheap.

    Shards are shared out to processes and workers, so there it is so for equal numbers of these. And
    DATALOADER.ASPECT_RATIO_GROUPING holds a few images back: with it, neither other processes nor a resumed run give
    quite the same batches.

    Args:
        cfg: the config.
        start_iter: begin at this batch, loading none before it, to resume a run.

    Returns:
        Batches of this process's share of SOLVER.IMS_PER_BATCH.

    Raises:
        UserError: a dataset, mapper or sampler that does not exist, no image to train on, or too few shards.
    """
    batch_size, seed = _batch_size(cfg), _seed(cfg)
    mapper = _build_mapper(cfg, is_train=True)
    if _are_shards(cfg.DATASETS.TRAIN):
        return _shard_batches(cfg, mapper, batch_size, seed, start_iter)
    grouped = cfg.DATALOADER.ASPECT_RATIO_GROUPING
    dicts = load_train_dicts(cfg)
    if hasattr(mapper, "log_coverage") and comm.is_main_process():
        mapper.log_coverage(dicts)
    loader = UnpackedBatches(
        torchdata.DataLoader(
            SeededExamples(DatasetFromList(dicts, copy=False), mapper, seed),
            sampler=PlacesFrom(_build_sampler(cfg, dicts, seed), start_iter * batch_size),
            batch_size=None if grouped else batch_size,
            **_worker_options(cfg),
        )
    )
    return WatchedBatches(AspectRatioGroupedDataset(loader, batch_size) if grouped else loader)


def build_test_loader(cfg: CfgNode, dataset_name: str, batch_size: int = 1) -> UnpackedBatches:
    """Build the loader that goes once over this process's part of a dataset, in order, with no augmentation.

    Args:
        cfg: the config.
        dataset_name: a registered dataset.
        batch_size: images per batch; one is what published inference times count.

    Returns:
        Batches of examples.
    """
    loader = build_detection_test_loader(
        load_dataset(dataset_name),
        mapper=_build_mapper(cfg, is_train=False),
        batch_size=batch_size,
        **_worker_options(cfg),
    )
    return UnpackedBatches(loader)


def load_train_dicts(cfg: CfgNode) -> list[dict[str, Any]]:
    """Load DATASETS.TRAIN: of each set the DATASETS.TRAIN_FRACTION, of these the images with something to detect.

    Of images with captions, DATASETS.CAPTIONS_PER_IMAGE; those without a file are left out.

    Raises:
        UserError: no dataset named, classes that differ between datasets, too many files missing, or no image left.
    """
    names = cfg.DATASETS.TRAIN
    if not names:
        raise UserError("DATASETS.TRAIN is empty: name at least one dataset to train on.")
    dicts = [example for name in names for example in _load_part(cfg, name)]
    if dicts and all("annotations" in example for example in dicts):
        if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
            dicts = filter_images_with_only_crowd_annotations(dicts)
        _check_classes(names)
    if not dicts:
        raise UserError(
            f"No image to train on in {', '.join(names)} with DATASETS.TRAIN_FRACTION {cfg.DATASETS.TRAIN_FRACTION}.\n"
            "Raise the fraction, or set DATALOADER.FILTER_EMPTY_ANNOTATIONS False to keep images without objects."
        )
    _log_classes(names[0], dicts)
    return dicts


def _load_part(cfg: CfgNode, name: str) -> list[dict[str, Any]]:
    seed = cfg.DATASETS.SUBSET_SEED
    dicts = take_fraction(load_dataset(name), cfg.DATASETS.TRAIN_FRACTION, seed)
    if not all("captions" in example for example in dicts):
        return dicts
    dicts = leave_out_missing(dicts, name, cfg.DATASETS.MAX_MISSING_FILES)
    return take_captions(dicts, cfg.DATASETS.CAPTIONS_PER_IMAGE, seed)


def _are_shards(names: Sequence[str]) -> bool:
    shards = [name for name in names if name.startswith(SHARDS)]
    if shards and len(shards) < len(names):
        raise UserError(
            f"DATASETS.TRAIN names shards ({', '.join(shards)}) beside data sets that are lists of images.\n"
            "Train on shards alone or on lists alone; write the one as the other to have both."
        )
    return bool(shards)


def _shard_batches(cfg: CfgNode, mapper: Mapper, batch_size: int, seed: int, start_iter: int) -> WatchedBatches:
    check_datasets(cfg.DATASETS.TRAIN)
    files = [file for name in cfg.DATASETS.TRAIN for file in MetadataCatalog.get(name).shards]
    options = _worker_options(cfg)
    _check_enough_shards(len(files), options["num_workers"])
    examples = ShardExamples(
        files,
        mapper,
        seed=seed,
        batch_size=batch_size,
        start_iter=start_iter,
        shuffle_size=cfg.DATALOADER.SHARD_SHUFFLE_SIZE,
        choice=Choice(cfg.DATASETS.TRAIN_FRACTION, cfg.DATASETS.CAPTIONS_PER_IMAGE, cfg.DATASETS.SUBSET_SEED),
        rank=comm.get_rank(),
        processes=comm.get_world_size(),
    )
    return WatchedBatches(UnpackedBatches(torchdata.DataLoader(examples, batch_size=batch_size, **options)))


def _check_enough_shards(shards: int, workers: int) -> None:
    processes = comm.get_world_size()
    if shards >= processes * max(workers, 1):
        return
    advice = f"Set DATALOADER.NUM_WORKERS {shards // processes}" if shards >= processes else "Use fewer processes"
    raise UserError(
        f"DATASETS.TRAIN names {shards} shards for {processes} processes with {max(workers, 1)} workers each, and "
        f"every worker needs one of its own.\n{advice}, or write the data into more shards."
    )


def _seed(cfg: CfgNode) -> int:
    """Return SEED, or without one a random number that all processes agree on."""
    return cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()


def _build_sampler(cfg: CfgNode, dicts: list[dict[str, Any]], seed: int) -> torchdata.Sampler:
    name = cfg.DATALOADER.SAMPLER_TRAIN
    if name == "TrainingSampler":
        return TrainingSampler(len(dicts), seed=seed)
    if name == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dicts, cfg.DATALOADER.REPEAT_THRESHOLD, sqrt=cfg.DATALOADER.REPEAT_SQRT
        )
        return RepeatFactorTrainingSampler(factors, seed=seed)
    raise UserError(
        f"DATALOADER.SAMPLER_TRAIN is '{name}'; expected TrainingSampler or RepeatFactorTrainingSampler.\n"
        "For a random part of a dataset set DATASETS.TRAIN_FRACTION."
    )


def _build_mapper(cfg: CfgNode, is_train: bool) -> Mapper:
    name = cfg.DATALOADER.MAPPER
    if name not in MAPPER_REGISTRY:
        known = ", ".join(known for known, _ in MAPPER_REGISTRY)
        raise UserError(f"DATALOADER.MAPPER is '{name}'; expected one of {known}.")
    return MAPPER_REGISTRY.get(name)(cfg, is_train)


def _batch_size(cfg: CfgNode) -> int:
    total, processes = cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
    if total < processes or total % processes:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {total} cannot be shared by {processes} processes; set a multiple of {processes}."
        )
    return total // processes


def _worker_options(cfg: CfgNode) -> dict[str, Any]:
    """Return DataLoader's options: no more workers than cores, where each one more only takes time from the others."""
    workers = min(cfg.DATALOADER.NUM_WORKERS, _available_cores())
    return {"num_workers": workers, "collate_fn": pack if workers else trivial_batch_collator}


def _available_cores() -> int:
    """Return how many cores this process may use; containers and Slurm give fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_classes(names: tuple[str, ...]) -> None:
    if len(names) == 1:
        return
    try:
        check_metadata_consistency("thing_classes", names)
    except ValueError as error:
        raise UserError(f"{', '.join(names)} have different classes; train on datasets with the same ones.") from error


def _log_classes(name: str, dicts: list[dict[str, Any]]) -> None:
    classes = MetadataCatalog.get(name).get("thing_classes")
    if classes and "annotations" in dicts[0]:
        print_instances_class_histogram(dicts, classes)
