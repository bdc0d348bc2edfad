"""Datasets: scenes, captions, parts of datasets; importing this registers the built-in ones."""

from virtex_det.data.datasets.builtin import (
    datasets_root,
    register_builtin_datasets,
    standard_names,
)
from virtex_det.data.datasets.captions import load_coco_captions, register_coco_captions
from virtex_det.data.datasets.loading import (
    STANDARD,
    check_datasets,
    check_num_classes,
    keep_loaded,
    load_captions,
    load_dataset,
)
from virtex_det.data.datasets.missing_files import find_missing, leave_out_missing
from virtex_det.data.datasets.pairs import load_pairs
from virtex_det.data.datasets.scenes import draw_scene, generate_scenes
from virtex_det.data.datasets.shards import load_shards
from virtex_det.data.datasets.split_files import Manifest, Subset, make_manifest, take_split
from virtex_det.data.datasets.subsets import (
    instances_of,
    is_in_fraction,
    manifest_sha256,
    rank_images,
    take_captions,
    take_fraction,
)
from virtex_det.data.datasets.versions import dataset_version, remember_size

register_builtin_datasets(datasets_root())
STANDARD.update(standard_names())

__all__ = [
    "Manifest",
    "Subset",
    "check_datasets",
    "check_num_classes",
    "dataset_version",
    "datasets_root",
    "draw_scene",
    "find_missing",
    "generate_scenes",
    "instances_of",
    "is_in_fraction",
    "keep_loaded",
    "leave_out_missing",
    "load_captions",
    "load_coco_captions",
    "load_dataset",
    "load_pairs",
    "load_shards",
    "make_manifest",
    "manifest_sha256",
    "rank_images",
    "register_builtin_datasets",
    "register_coco_captions",
    "remember_size",
    "take_captions",
    "take_fraction",
    "take_split",
]
