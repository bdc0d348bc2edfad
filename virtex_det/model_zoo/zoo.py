"""Configs and models for published weights by name, after Detectron2's model zoo."""

import logging
from typing import TYPE_CHECKING

from detectron2.config import CfgNode
from torch import nn

from virtex_det.config import load_config, override
from virtex_det.config.files import packaged_config
from virtex_det.errors import UserError
from virtex_det.model_zoo.catalog import Record, find
from virtex_det.model_zoo.handler import PREFIX

if TYPE_CHECKING:
    from virtex_det.checkpoint.weights import Required

logger = logging.getLogger(__name__)

# Size of the vocabulary of all published pretraining models; the weights files do not contain it.
_PUBLISHED_PIECES = 10000


def get_config_file(name: str, task: str = "detection") -> str:
    """Return the path of the config for the weights of a name.

    Args:
        name: of the model zoo.
        task: "detection" for the detector that is fine-tuned from the weights, "pretraining" for
            the model that the file holds.

    Raises:
        UserError: the name or task is unknown, or "pretraining" is asked of a file with only a
            backbone.
    """
    return str(packaged_config(_config_of(find(name), task)))


def get_config(name: str, trained: bool = False, task: str = "detection") -> CfgNode:
    """Return the config for the weights of a name, with their network and pixel format.

    Args:
        name: of the model zoo, for example ``bicaptioning_R_50_L1_H2048``.
        trained: also set ``MODEL.WEIGHTS``; otherwise the model starts from random init.
        task: as for ``get_config_file``.

    Returns:
        The config, not frozen, as Detectron2's model zoo returns it.
    """
    record = find(name)
    keys: dict[str, object] = (
        {"MODEL.TEXTUAL.VOCAB_SIZE": _PUBLISHED_PIECES} if task == "pretraining" else {}
    )
    keys |= record.network
    if trained:
        keys["MODEL.WEIGHTS"] = PREFIX + record.name
    cfg = load_config(get_config_file(name, task), keys)
    cfg.defrost()
    return cfg


def get(name: str, trained: bool = True, device: str | None = None, *, task: str = "") -> nn.Module:
    """Return the model of a weights file, with the weights loaded.

    Args:
        name: of the model zoo.
        trained: False leaves the whole model at random init and logs a warning.
        device: by default the GPU, or the CPU without one.
        task: "pretraining" for the whole model that the file holds, in training mode; "backbone"
            for its backbone as ``load_backbone`` returns it; "detection" for a detector that starts
            from it, whose heads are at random init, with a warning. By default "pretraining" if the
            file holds such a model, otherwise "backbone".

    Raises:
        UserError: the name or task is unknown, the file does not fit the task, or the weights
            cannot be downloaded or read.
    """
    # Imported here, so that importing the package only registers names.
    from virtex_det.checkpoint import TransferCheckpointer
    from virtex_det.model_zoo.backbone import load_backbone, random_backbone
    from virtex_det.modeling import build_model

    record = find(name)
    task = task or ("pretraining" if record.pretraining_config else "backbone")
    if not trained:
        logger.warning("%s: trained is False, so all weights are at random init", record.name)
    if task == "backbone":
        if trained:
            return load_backbone(PREFIX + record.name, device=device)
        return random_backbone(get_config(name), device=device)
    cfg = override(get_config(name, trained, task), {"MODEL.DEVICE": device} if device else {})
    model = build_model(cfg)
    if trained:
        require: Required = "model" if task == "pretraining" else "backbone"
        checkpointer = TransferCheckpointer(model, cfg=cfg, require=require)
        checkpointer.load(cfg.MODEL.WEIGHTS)
        loaded = checkpointer.report.loaded if checkpointer.report else ()
        _warn_of_random_heads(name, set(model.state_dict()) - set(loaded))
    return model


def _config_of(record: Record, task: str) -> str:
    if task == "detection":
        return record.config
    if task != "pretraining":
        raise UserError(
            f"There is no config for the task {task!r}; expected 'detection' or 'pretraining'."
        )
    if not record.pretraining_config:
        raise UserError(
            f"{record.name} ({record.family}: {record.pretraining}) has no pretraining model here, "
            f"only a backbone. Use virtex_det.load_backbone({PREFIX + record.name!r}), or "
            "fine-tune a detector from it."
        )
    return record.pretraining_config


def _warn_of_random_heads(name: str, at_random: set[str]) -> None:
    heads = sorted({tensor.partition(".")[0] for tensor in at_random} - {"pixel_mean", "pixel_std"})
    if heads:
        logger.warning(
            "%s fills only the backbone: %d tensors of %s are at random init. Fine-tune the model "
            "before you predict with it.",
            name,
            len(at_random),
            ", ".join(heads),
        )


def get_checkpoint_url(name: str) -> str:
    """Return the address of the weights of a name.

    Raises:
        UserError: the name is unknown, or its file has no direct address.
    """
    record = find(name)
    if not record.urls:
        advice = f"see {record.page}. {record.note}".strip()
        raise UserError(f"No direct address is known for {record.name}; {advice}")
    return record.urls[0]
