"""Loaders for training and evaluation, from a config."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.utils.data as torchdata
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, MapDataset, MetadataCatalog, build_detection_test_loader
from detectron2.data.build import (
    filter_images_with_only_crowd_annotations,
    print_instances_class_histogram,
    trivial_batch_collator,
    worker_init_reset_seed,
)
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.detection_utils import check_metadata_consistency
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from fvcore.common.registry import Registry

from virtex_det.data.datasets import load_dataset
from virtex_det.data.datasets.subsets import take_fraction
from virtex_det.data.workers import UnpackedBatches, pack
from virtex_det.errors import UserError

MAPPER_REGISTRY = Registry("MAPPER")
MAPPER_REGISTRY.__doc__ = "Classes that, called with (cfg, is_train), give a function from dataset dict to example."


def build_train_loader(cfg: CfgNode, start_iter: int = 0) -> Iterable[list[dict[str, Any]]]:
    """Build the endless loader of training batches that DATASETS, DATALOADER and INPUT describe.

    With SEED set, batch k holds the same images in every run of a config, whatever the number of workers; with the
    same number of workers, the same pixels. Unlike in Detectron2's loader the sampler runs once, in this process, and
    not in each worker once per image of a batch: that is what makes a late start cheap.

    Args:
        cfg: the config.
        start_iter: begin at this batch, loading none before it, to resume a run. Exact unless
            DATALOADER.ASPECT_RATIO_GROUPING is on, which holds a few images back. Augmentation draws anew.

    Returns:
        Batches of this process's share of SOLVER.IMS_PER_BATCH.

    Raises:
        UserError: a dataset, mapper or sampler that does not exist, or no image to train on.
    """
    batch_size = _batch_size(cfg)
    grouped = cfg.DATALOADER.ASPECT_RATIO_GROUPING
    mapper = _build_mapper(cfg, is_train=True)
    dicts = load_train_dicts(cfg)
    loader = UnpackedBatches(
        torchdata.DataLoader(
            MapDataset(DatasetFromList(dicts, copy=False), mapper),
            sampler=_SamplerFrom(_build_sampler(cfg, dicts), start_iter * batch_size),
            batch_size=None if grouped else batch_size,
            worker_init_fn=worker_init_reset_seed,
            generator=_augmentation_generator(cfg, start_iter),
            **_worker_options(cfg),
        )
    )
    return AspectRatioGroupedDataset(loader, batch_size) if grouped else loader


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

    Raises:
        UserError: no dataset named, classes that differ between datasets, or no image left.
    """
    names = cfg.DATASETS.TRAIN
    if not names:
        raise UserError("DATASETS.TRAIN is empty: name at least one dataset to train on.")
    fraction, seed = cfg.DATASETS.TRAIN_FRACTION, cfg.DATASETS.SUBSET_SEED
    dicts = [example for name in names for example in take_fraction(load_dataset(name), fraction, seed)]
    if dicts and all("annotations" in example for example in dicts):
        if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
            dicts = filter_images_with_only_crowd_annotations(dicts)
        _check_classes(names)
    if not dicts:
        raise UserError(
            f"No image to train on in {', '.join(names)} with DATASETS.TRAIN_FRACTION {fraction}.\n"
            "Raise the fraction, or set DATALOADER.FILTER_EMPTY_ANNOTATIONS False to keep images without objects."
        )
    _log_classes(names[0], dicts)
    return dicts


class _SamplerFrom(torchdata.Sampler):
    """Another sampler's indices from a position on."""

    def __init__(self, sampler: torchdata.Sampler, start: int) -> None:
        self.sampler = sampler
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self.sampler, self.start, None)


def _build_sampler(cfg: CfgNode, dicts: list[dict[str, Any]]) -> torchdata.Sampler:
    """Build SAMPLER_TRAIN; without a SEED all processes agree on a random one."""
    seed = cfg.SEED if cfg.SEED >= 0 else None
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


def _build_mapper(cfg: CfgNode, is_train: bool) -> Callable[[dict[str, Any]], dict[str, Any]]:
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


def _augmentation_generator(cfg: CfgNode, start_iter: int) -> torch.Generator | None:
    """Return what workers draw their seeds from: another for each process, and for each point of resumption."""
    if cfg.SEED < 0:
        return None
    return torch.Generator().manual_seed(cfg.SEED + comm.get_rank() + start_iter)


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
