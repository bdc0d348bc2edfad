"""Probes of pretrained backbones: the backbone of a weights file with a classifier on top."""

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch.nn import functional as F
from tqdm import tqdm

from virtex_det.checkpoint import TransferCheckpointer, backbone_keys
from virtex_det.config import load_config
from virtex_det.data import build_test_loader
from virtex_det.engine.preflight import check_probe
from virtex_det.engine.results import write_records
from virtex_det.engine.trainer import Trainer
from virtex_det.escaping import visible
from virtex_det.evaluation.probes import COSTS, FOLDS, Examples, probe_classes, read_labels
from virtex_det.modeling import ImageClassifier


def follow_backbone(args: argparse.Namespace) -> argparse.Namespace:
    """Append the keys of the weights' network to a command line's overrides; the last value wins.

    Raises:
        UserError: config or weights cannot be read.
    """
    keys = backbone_keys(load_config(args.config_file, args.opts))
    args.opts = [*args.opts, *(part for pair in keys.items() for part in pair)]
    return args


def probe_svm(cfg: CfgNode, costs: Sequence[float] = COSTS, folds: int = FOLDS) -> dict[str, Any]:
    """Train linear SVMs on features of DATASETS.TRAIN, test on DATASETS.TEST, write a record.

    Args:
        cfg: of an ImageClassifier; MODEL.WEIGHTS may be "", for the features of a random network.
        costs: candidates for the cost of each SVM.
        folds: of the cross-validation that chooses among the costs.

    Returns:
        {"svm": {"mAP": percent, ...}}.

    Raises:
        UserError: weights or data cannot be used.
    """
    started = time.monotonic()
    check_probe(cfg)
    model = Trainer.build_model(cfg).eval()
    assert isinstance(model, ImageClassifier)
    TransferCheckpointer(model, cfg.OUTPUT_DIR, cfg=cfg).load(cfg.MODEL.WEIGHTS, checkpointables=[])
    train, test = (
        extract_examples(cfg, model, name) for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    )
    classes = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).thing_classes
    results = {"svm": probe_classes(train, test, classes, costs, folds)}
    seconds = time.monotonic() - started
    departures = [f"COSTS=({','.join(map(str, costs))})"] if tuple(costs) != COSTS else []
    departures += [f"FOLDS={folds}"] if folds != FOLDS else []
    write_records(
        cfg,
        results,
        iteration=None,
        training_seconds=None,
        wall_seconds=seconds,
        departures=departures,
    )
    return results


@torch.no_grad()
def extract_examples(cfg: CfgNode, model: ImageClassifier, dataset_name: str) -> Examples:
    """Return the features, normalised to length 1, and the labels of all images of a data set.

    Args:
        cfg: decides how images are resized, cropped and batched.
        model: in evaluation mode.
        dataset_name: a registered dataset with boxes.
    """
    labels = read_labels(dataset_name)
    loader = build_test_loader(cfg, dataset_name, batch_size=cfg.DATALOADER.TEST_BATCH_SIZE)
    features: list[np.ndarray] = []
    found: list[np.ndarray] = []
    for batch in tqdm(loader, desc=f"features of {visible(dataset_name, '')}", unit="batch"):
        features.append(F.normalize(model.image_features(batch)).cpu().numpy())
        found += [labels[example["image_id"]] for example in batch]
    return Examples(np.concatenate(features), np.stack(found))
