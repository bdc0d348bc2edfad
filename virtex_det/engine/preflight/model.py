"""Checks, before data are loaded, that a config builds a model and that weights have its shapes."""

import logging
import shutil
from pathlib import Path

import torch
from detectron2.config import CfgNode
from torch import nn

from virtex_det.checkpoint import classes_in, recognise
from virtex_det.checkpoint.compatibility import network_facts, with_pixels
from virtex_det.checkpoint.formats import Pixels
from virtex_det.checkpoint.loading import compare, fill
from virtex_det.checkpoint.locating import locate
from virtex_det.checkpoint.reading import read_content
from virtex_det.checkpoint.sources import open_for
from virtex_det.checkpoint.weights import Required
from virtex_det.data.seeding import seeded
from virtex_det.engine.explain import MODEL_KEYS, building
from virtex_det.engine.preflight.idle import warn_of_idle_keys
from virtex_det.engine.run_folder import CLASSES, read_classes
from virtex_det.errors import UserError
from virtex_det.modeling import build_model

logger = logging.getLogger(__name__)


def build_shapes(cfg: CfgNode) -> nn.Module:
    """Return the model of a config with tensors without values, in a tenth of a second.

    The state of the random generators stays unchanged.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    with building("model", cfg, *MODEL_KEYS), seeded(0, "shapes"):
        try:
            with torch.device("meta"):
                return build_model(cfg)
        except (NotImplementedError, RuntimeError):
            # The model reads values while it is built.
            cfg.MODEL.DEVICE = "cpu"
            return build_model(cfg)


def check_weights(cfg: CfgNode, path: str, require: Required = "backbone") -> None:
    """Check that weights fit the model of a config, tensor by tensor, as the load will.

    Args:
        cfg: the config.
        path: a file or an address, which is fetched; "" for random init.
        require: the part of the model that they must fill.

    Raises:
        UserError: the file cannot be read, or does not fit.
    """
    model = build_shapes(cfg)
    if not path:
        return
    weights = open_for(tuple(model.state_dict()), path, require, cfg).weights
    partial = require == "backbone" and cfg.MODEL.ALLOW_PARTIAL_WEIGHTS
    fill(model, weights, path, require=require, allow_partial=partial, cfg=cfg)


def check_successor(cfg: CfgNode, before: CfgNode) -> None:
    """Check that the weights of a future pretraining will fit the model that starts from them.

    Args:
        cfg: of the run that starts from them.
        before: of the pretraining.

    Raises:
        UserError: they will not fit.
    """
    model, pretrained = build_shapes(cfg), build_shapes(before)
    pixels = Pixels(before.INPUT.FORMAT, before.MODEL.PIXEL_MEAN, before.MODEL.PIXEL_STD)
    if cfg.MODEL.FOLLOW_WEIGHTS:
        cfg = with_pixels(cfg, pixels)
    saved = {
        "model": pretrained.state_dict(),
        "pixels": pixels._asdict(),
        "network": network_facts(before),
    }
    name = f"the model of the pretraining {before.OUTPUT_DIR}"
    targets = {
        key: value for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)
    }
    weights = recognise(saved, name, like=tuple(targets))
    compare(targets, weights, name, allow_partial=cfg.MODEL.ALLOW_PARTIAL_WEIGHTS, cfg=cfg)


def classes_of(weights: str) -> tuple[str, ...]:
    """Return the class names that a checkpoint was trained on, from the file or its run folder."""
    file = locate(weights)
    known = classes_in(read_content(file))
    if not known:
        return read_classes(file.parent)
    try:
        is_other = read_classes(file.parent) not in ((), known)
    except UserError:
        is_other = True
    if is_other:
        logger.warning(
            "%s is damaged or has other classes than %s; those of the latter are used",
            file.parent / CLASSES,
            file,
        )
    return known


def look_at_model(cfg: CfgNode) -> None:
    """Build the model of a config without values, and warn of what would go wrong in silence."""
    model = build_shapes(cfg)
    _warn_of_full_disk(cfg, model)
    warn_of_idle_keys(cfg, model)


def _warn_of_full_disk(cfg: CfgNode, network: nn.Module) -> None:
    """Warn if the disk of OUTPUT_DIR has no space for two checkpoints.

    One stays while the next is written.
    """
    tensors = network.state_dict().values()
    model = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    optimizer = {"AdamW": 2, "SGD": 1}.get(cfg.SOLVER.OPTIMIZER, 2) * model
    needed = 2 * (model + optimizer)
    folder = _existing(Path(cfg.OUTPUT_DIR).absolute())
    free = shutil.disk_usage(folder).free
    if free < needed:
        logger.warning(
            "The disk of OUTPUT_DIR %s has %d MB free; two checkpoints of the run take about %d MB",
            cfg.OUTPUT_DIR,
            free // 2**20,
            needed // 2**20,
        )


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
