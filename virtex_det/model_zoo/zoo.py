"""Configs and models for published weights by name, after Detectron2's model zoo."""

import logging

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from virtex_det.config import get_cfg
from virtex_det.config.files import packaged_config
from virtex_det.errors import UserError
from virtex_det.model_zoo.catalog import find
from virtex_det.model_zoo.handler import PREFIX


def get_config_file(name: str) -> str:
    """Return the path of the config that goes with the weights of a name.

    Raises:
        UserError: for an unknown name.
    """
    return str(packaged_config(find(name).config))


def get_config(name: str, trained: bool = False) -> CfgNode:
    """Return the config that goes with the weights of a name, its network and pixels being theirs.

    Args:
        name: of the model zoo, for example ``bicaptioning_R_50_L1_H2048``.
        trained: also set ``MODEL.WEIGHTS`` to them; else the model starts at random.
    """
    record = find(name)
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file(name), allow_unsafe=False)
    for key, value in record.network.items():
        cfg.merge_from_list([key, value])
    if trained:
        cfg.MODEL.WEIGHTS = PREFIX + record.name
    return cfg


def get(name: str, trained: bool = False, device: str | None = None) -> nn.Module:
    """Return the model of ``get_config(name)``, in training mode.

    Args:
        name: of the model zoo.
        trained: load the published weights into its backbone; else all of it is at random.
        device: where to put it; by default the GPU, or the CPU where there is none.
    """
    from virtex_det.checkpoint import TransferCheckpointer  # only here: importing the package registers names, no more

    cfg = get_config(name, trained)
    cfg.MODEL.DEVICE = device or (cfg.MODEL.DEVICE if torch.cuda.is_available() else "cpu")
    model = build_model(cfg)
    if trained:
        checkpointer = TransferCheckpointer(model, cfg=cfg)
        checkpointer.load(cfg.MODEL.WEIGHTS)
        loaded = checkpointer.report.loaded if checkpointer.report else ()
        _warn_of_random_heads(name, set(model.state_dict()) - set(loaded))
    return model


def _warn_of_random_heads(name: str, at_random: set[str]) -> None:
    heads = sorted({tensor.partition(".")[0] for tensor in at_random} - {"pixel_mean", "pixel_std"})
    if heads:
        logging.getLogger(__name__).warning(
            "%s is the backbone alone: %d tensors of %s are at random. Fine-tune the model before it predicts.",
            *(name, len(at_random), ", ".join(heads)),
        )


def get_checkpoint_url(name: str) -> str:
    """Return the address that the weights of a name are published at.

    Raises:
        UserError: for an unknown name, and for weights that only a person can fetch.
    """
    record = find(name)
    if not record.urls:
        raise UserError(f"No direct address is known for {record.name}; see {record.page}. {record.note}".strip())
    return record.urls[0]
