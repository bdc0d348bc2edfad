"""Data sets: the built-in scenes, captions, parts of data sets; importing this registers them with Detectron2."""

from virtex_det.data.datasets.builtin import datasets_root, register_builtin_datasets
from virtex_det.data.datasets.captions import load_coco_captions, register_coco_captions
from virtex_det.data.datasets.loading import check_datasets, check_num_classes, load_dataset
from virtex_det.data.datasets.missing_files import leave_out_missing
from virtex_det.data.datasets.pairs import load_pairs
from virtex_det.data.datasets.scenes import draw_scene, generate_scenes
from virtex_det.data.datasets.shards import load_shards
from virtex_det.data.datasets.subsets import is_in_fraction, manifest_sha256, take_captions, take_fraction

register_builtin_datasets(datasets_root())

__all__ = [
    "check_datasets",
    "check_num_classes",
    "datasets_root",
    "draw_scene",
    "generate_scenes",
    "is_in_fraction",
    "leave_out_missing",
    "load_coco_captions",
    "load_dataset",
    "load_pairs",
    "load_shards",
    "manifest_sha256",
    "register_builtin_datasets",
    "register_coco_captions",
    "take_captions",
    "take_fraction",
]
