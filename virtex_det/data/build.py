"""Loaders for training and evaluation, from a config."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch.utils.data as torchdata
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, MapDataset, MetadataCatalog
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import InferenceSampler, RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from fvcore.common.registry import Registry

from virtex_det.config.mappers import OURS, mapper_name
from virtex_det.data.collate import UnpackingLoader, pack
from virtex_det.data.datasets import check_datasets, load_dataset, remember_size
from virtex_det.data.datasets.missing_files import refuse_addresses
from virtex_det.data.datasets.shards import captions_of_some
from virtex_det.data.image_checks import check_some
from virtex_det.data.seeded_dataset import (
    GroupedPositionSampler,
    Mapper,
    PositionSampler,
    SeededDataset,
    skips_broken_images,
)
from virtex_det.data.seeding import seeded
from virtex_det.data.shard_stream import Choice, ShardExamples
from virtex_det.data.skipped import SkipCountingLoader
from virtex_det.data.tokenizers import Tokenizer
from virtex_det.data.training_set import (
    are_shards,
    check_has_objects,
    keep_training_set,
    load_training_set,
)
from virtex_det.data.vocabulary import check_known_words
from virtex_det.errors import BrokenExample, UserError
from virtex_det.signals import serve_parent

logger = logging.getLogger(__name__)

# The packed images of each loader in use, and those that ``lending_images`` lends.
_images: WeakKeyDictionary[SkipCountingLoader, DatasetFromList] = WeakKeyDictionary()
_lent: DatasetFromList | None = None

MAPPER_REGISTRY = Registry("MAPPER")
MAPPER_REGISTRY.__doc__ = (
    "Classes that are called with (cfg, is_train) and return a function from dataset dict to "
    "example."
)


def build_train_loader(cfg: CfgNode, start_iter: int = 0) -> SkipCountingLoader:
    """Build the endless loader of training batches that DATASETS, DATALOADER and INPUT describe.

    With SEED set, batch k has the same pixels and captions in every run of a config, resumed or
    not, with any number of workers and of processes (which share a batch). With shards this needs
    equal numbers of workers and processes, among which the shards are divided. With
    DATALOADER.ASPECT_RATIO_GROUPING it needs an equal number of processes, each of which groups its
    own images.

    The sampler runs once, in this process. In Detectron2's loader it runs in each worker, once per
    image of a batch, which makes a late start slow.

    Args:
        cfg: the config.
        start_iter: first batch, to resume a run; earlier ones are not loaded.

    Returns:
        Batches of this process's share of SOLVER.IMS_PER_BATCH. For a part of the images, their
        manifest is written to ``subset.json`` in OUTPUT_DIR.

    Raises:
        UserError: a dataset, mapper or sampler is unknown, there is no image to train on, a
            detector gets images without boxes, or there are too few shards.
    """
    batch_size, seed = _batch_size(cfg), _seed(cfg)
    mapper = _build_mapper(cfg, is_train=True)
    if are_shards(cfg):
        return _shard_batches(cfg, mapper, batch_size, seed, start_iter)
    images, dicts = (_lent, _lent) if _lent is not None else _load_images(cfg, mapper)
    groups = cfg.DATALOADER.ASPECT_RATIO_GROUPING and not getattr(mapper, "gives_squares", False)
    loader = torchdata.DataLoader(
        SeededDataset(images, mapper, seed),
        **_order(groups, dicts, _build_sampler(cfg, dicts, seed), batch_size, start_iter),
        **_worker_options(cfg),
    )
    batches = SkipCountingLoader(UnpackingLoader(loader))
    _images[batches] = images
    return batches


@contextmanager
def lending_images(batches: object) -> Iterator[None]:
    """Make ``build_train_loader`` reuse the images of an earlier loader within the block.

    Args:
        batches: a loader from ``build_train_loader``, for a config with the same images. With any
            other object the block has no effect.
    """
    global _lent
    _lent = _images.get(batches) if isinstance(batches, SkipCountingLoader) else None
    try:
        yield
    finally:
        _lent = None


def _load_images(cfg: CfgNode, mapper: Mapper) -> tuple[DatasetFromList, list[dict[str, Any]]]:
    """Return the training images twice: packed for the workers, and as dicts."""
    dicts, manifest, *_ = load_training_set(cfg)
    _check_boxes(cfg, dicts)
    check_captions_per_image(cfg, dicts)
    if comm.is_main_process():
        if cfg.DATASETS.TRAIN_FRACTION < 1 or cfg.DATASETS.SUBSET_FILE:
            manifest.write(Path(cfg.OUTPUT_DIR) / "subset.json")
        if hasattr(mapper, "log_coverage"):
            mapper.log_coverage(dicts)
    return DatasetFromList(dicts, copy=False), dicts


def build_test_loader(cfg: CfgNode, dataset_name: str, batch_size: int = 1) -> UnpackingLoader:
    """Build the loader of this process's part of a dataset: once, in order, without augmentation.

    Args:
        cfg: the config.
        dataset_name: a registered dataset.
        batch_size: images per batch; published inference times are for 1.

    Returns:
        Batches of examples.
    """
    dicts = load_dataset(dataset_name)
    remember_size(dataset_name, len(dicts))
    loader = torchdata.DataLoader(
        MapDataset(DatasetFromList(dicts, copy=False), _build_mapper(cfg, is_train=False)),
        sampler=InferenceSampler(len(dicts)),
        batch_size=batch_size,
        **_worker_options(cfg),
    )
    return UnpackingLoader(loader)


def _order(
    groups: bool,
    dicts: Sequence[dict[str, Any]],
    sampler: torchdata.Sampler,
    batch_size: int,
    start_iter: int,
) -> dict[str, Any]:
    """Return DataLoader's options for the order and the batches of examples."""
    if groups:
        return {
            "batch_sampler": GroupedPositionSampler(
                PositionSampler(sampler, 0), dicts, batch_size, start_iter
            )
        }
    return {"sampler": PositionSampler(sampler, start_iter * batch_size), "batch_size": batch_size}


def check_train_loader(cfg: CfgNode) -> tuple[list[dict[str, Any]], dict[str, set[str]]]:
    """Raise the errors of ``build_train_loader``; data loaded here is kept for it.

    Returns:
        The training images, and the paths of their files by dataset; nothing for shards, which are
        read as a stream.
    """
    _batch_size(cfg)
    workers = _worker_options(cfg)["num_workers"]
    mapper = _build_mapper(cfg, is_train=True)
    if are_shards(cfg):
        check_datasets(cfg.DATASETS.TRAIN)
        _check_enough_shards(len(_shards(cfg)), workers)
        _check_some_samples(cfg, mapper)
        return [], {}
    _check_sampler(cfg)
    loaded = keep_training_set(cfg)
    dicts = loaded.dicts
    _check_boxes(cfg, dicts)
    check_captions_per_image(cfg, dicts)
    check_has_objects(cfg, dicts)
    if reads_images(cfg):
        refuse_addresses(dicts, ", ".join(cfg.DATASETS.TRAIN))
        check_some(", ".join(cfg.DATASETS.TRAIN), dicts, cfg.INPUT.MAX_VALUE)
    _check_words(mapper, dicts, ", ".join(cfg.DATASETS.TRAIN))
    if hasattr(mapper, "warn_of_missing_words"):
        mapper.warn_of_missing_words(dicts)
    # Later checks name what DatasetMapper's models lack: masks of pixels, keypoints.
    if mapper_name(cfg) in OURS and mapper_name(cfg) != "DatasetMapper":
        with seeded(0, "check"), suppress(BrokenExample):  # training skips and counts these
            mapper(dicts[0])
    return dicts, loaded.files


def _check_some_samples(cfg: CfgNode, mapper: Mapper) -> None:
    """Check the captions of some samples of shards, which are too many to be read before a run."""
    samples = captions_of_some(_shards(cfg))
    check_captions_per_image(cfg, samples, none=f"none of {len(samples)} samples that were read")
    _check_words(mapper, samples, ", ".join(cfg.DATASETS.TRAIN))


def _check_words(mapper: Mapper, dicts: Sequence[dict[str, Any]], name: str) -> None:
    tokenizer = getattr(mapper, "tokenizer", None)
    if isinstance(tokenizer, Tokenizer):
        check_known_words(tokenizer, dicts, name)


def reads_images(cfg: CfgNode) -> bool:
    """Return whether the config's mapper reads images with ``read_image``; a user's own may not."""
    name = mapper_name(cfg)
    return name in MAPPER_REGISTRY and skips_broken_images(MAPPER_REGISTRY.get(name))


def check_test_loader(cfg: CfgNode, name: str, dicts: list[dict[str, Any]]) -> None:
    """Raise the errors of ``build_test_loader``'s loader at its first image."""
    _worker_options(cfg)
    mapper = _build_mapper(cfg, is_train=False)
    _check_words(mapper, dicts, name)
    with seeded(0, "check"):
        mapper(dicts[0])


def check_captions_per_image(
    cfg: CfgNode, dicts: Sequence[dict[str, Any]], none: str = "no image"
) -> None:
    """Refuse more captions per step than any image has; warn of images with fewer.

    Args:
        cfg: the full config.
        dicts: the training images, or some of them.
        none: words for none of them, in the message.

    Raises:
        UserError: no image has as many captions as INPUT.CAPTION.PER_IMAGE asks for.
    """
    wanted = cfg.INPUT.CAPTION.PER_IMAGE
    if wanted == 1 or not all("captions" in example for example in dicts):
        return
    numbers = [len(example["captions"]) for example in dicts]
    if max(numbers, default=wanted) < wanted:
        raise UserError(
            f"INPUT.CAPTION.PER_IMAGE asks for {wanted} captions of an image in each step, but "
            f"{none} of {', '.join(cfg.DATASETS.TRAIN)} has more than {max(numbers)}.\n"
            f"Set INPUT.CAPTION.PER_IMAGE {max(numbers)}, or name data with more captions."
        )
    fewer = sum(number < wanted for number in numbers)
    if fewer:
        logger.warning(
            "%d of %d images have fewer captions than INPUT.CAPTION.PER_IMAGE, %d: a step reads "
            "all that they have, each once",
            fewer,
            len(numbers),
            wanted,
        )


def _check_boxes(cfg: CfgNode, dicts: list[dict[str, Any]]) -> None:
    is_detector = (cfg.MODEL.META_ARCHITECTURE, mapper_name(cfg)) == (
        "GeneralizedRCNN",
        "DetectionMapper",
    )
    if is_detector and not all("annotations" in example for example in dicts):
        raise UserError(
            f"A detector learns from boxes, but DATASETS.TRAIN ({', '.join(cfg.DATASETS.TRAIN)}) "
            "has images without annotations.\n"
            "Set it to data sets with instances, such as coco_2017_train."
        )


def _shard_batches(
    cfg: CfgNode, mapper: Mapper, batch_size: int, seed: int, start_iter: int
) -> SkipCountingLoader:
    check_datasets(cfg.DATASETS.TRAIN)
    files = _shards(cfg)
    options = _worker_options(cfg)
    _check_enough_shards(len(files), options["num_workers"])
    examples = ShardExamples(
        files,
        mapper,
        seed=seed,
        batch_size=batch_size,
        start_iter=start_iter,
        shuffle_size=cfg.DATALOADER.SHARD_SHUFFLE_SIZE,
        choice=Choice(
            cfg.DATASETS.TRAIN_FRACTION, cfg.DATASETS.CAPTIONS_PER_IMAGE, cfg.DATASETS.SUBSET_SEED
        ),
        rank=comm.get_rank(),
        processes=comm.get_world_size(),
    )
    return SkipCountingLoader(
        UnpackingLoader(torchdata.DataLoader(examples, batch_size=batch_size, **options))
    )


def _shards(cfg: CfgNode) -> list[str]:
    return [file for name in cfg.DATASETS.TRAIN for file in MetadataCatalog.get(name).shards]


def _check_enough_shards(shards: int, workers: int) -> None:
    processes = comm.get_world_size()
    if shards >= processes * max(workers, 1):
        return
    advice = (
        f"Set DATALOADER.NUM_WORKERS {shards // processes}"
        if shards >= processes
        else "Use fewer processes"
    )
    raise UserError(
        f"DATASETS.TRAIN names {shards} shards for {processes} processes with {max(workers, 1)} "
        "workers each, but every worker needs a shard of its own.\n"
        f"{advice}, or write the data into more shards."
    )


def _seed(cfg: CfgNode) -> int:
    """Return SEED, or without one a random number that all processes share."""
    return cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()


def _build_sampler(cfg: CfgNode, dicts: Sequence[dict[str, Any]], seed: int) -> torchdata.Sampler:
    _check_sampler(cfg)
    if cfg.DATALOADER.SAMPLER_TRAIN == "TrainingSampler":
        return TrainingSampler(len(dicts), seed=seed)
    if not all("annotations" in example for example in dicts):
        raise UserError(
            "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler repeats images by the "
            f"categories of their objects, but {', '.join(cfg.DATASETS.TRAIN)} has images without "
            "annotations.\n"
            "Set it to TrainingSampler."
        )
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        dicts, cfg.DATALOADER.REPEAT_THRESHOLD, sqrt=cfg.DATALOADER.REPEAT_SQRT
    )
    return RepeatFactorTrainingSampler(factors, seed=seed)


def _check_sampler(cfg: CfgNode) -> None:
    name = cfg.DATALOADER.SAMPLER_TRAIN
    if name not in ("TrainingSampler", "RepeatFactorTrainingSampler"):
        raise UserError(
            f"DATALOADER.SAMPLER_TRAIN is '{name}'; expected TrainingSampler or "
            "RepeatFactorTrainingSampler.\n"
            "For a random part of a dataset set DATASETS.TRAIN_FRACTION."
        )


def _build_mapper(cfg: CfgNode, is_train: bool) -> Mapper:
    name = mapper_name(cfg)
    if name not in MAPPER_REGISTRY:
        known = ", ".join(known for known, _ in MAPPER_REGISTRY)
        raise UserError(f"DATALOADER.MAPPER is '{name}'; expected one of {known}.")
    return MAPPER_REGISTRY.get(name)(cfg, is_train)


def _batch_size(cfg: CfgNode) -> int:
    total, processes = cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
    if total < processes or total % processes:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {total} cannot be shared by {processes} processes; set a "
            f"multiple of {processes}."
        )
    return total // processes


def count_workers(cfg: CfgNode) -> int:
    """Return the number of workers per process, at most one per core."""
    workers = min(cfg.DATALOADER.NUM_WORKERS, _available_cores())
    if workers < 0:
        raise UserError(
            f"DATALOADER.NUM_WORKERS is {workers}; set a number of 0 (load in this process) or "
            "more."
        )
    return workers


def _worker_options(cfg: CfgNode) -> dict[str, Any]:
    workers = count_workers(cfg)
    if not workers:
        return {"num_workers": 0, "collate_fn": trivial_batch_collator}
    return {
        "num_workers": workers,
        "collate_fn": pack,
        "worker_init_fn": partial(serve_parent, os.getpid()),
    }


def _available_cores() -> int:
    """Return the number of cores this process may use; containers and Slurm limit it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
