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

# Of the vocabulary that all published pretraining models share; no file of weights holds it.
_PUBLISHED_PIECES = 10000


def get_config_file(name: str, task: str = "detection") -> str:
    """Return the path of the config that goes with the weights of a name.

    Args:
        name: of the model zoo.
        task: "detection" for the detector that is fine-tuned from the weights, "pretraining" for
            the model that the file holds.

    Raises:
        UserError: for an unknown name or task, and for "pretraining" where the backbone alone is of
            use.
    """
    return str(packaged_config(_config_of(find(name), task)))


def get_config(name: str, trained: bool = False, task: str = "detection") -> CfgNode:
    """Return the config that goes with the weights of a name, its network and pixels being theirs.

    Args:
        name: of the model zoo, for example ``bicaptioning_R_50_L1_H2048``.
        trained: also set ``MODEL.WEIGHTS`` to them; else the model starts at random.
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
    """Return the model that the weights of a name are of, filled with them.

    Args:
        name: of the model zoo.
        trained: False leaves all of it at random, which is logged.
        device: where to put it; by default the GPU, or the CPU where there is none.
        task: "pretraining" for the whole model that the file holds, in training mode; "backbone"
            for its backbone as ``load_backbone`` returns it; "detection" for a detector that starts
            from it, whose heads are at random, which is logged. By default "pretraining" where the
            file holds such a model, else "backbone".

    Raises:
        UserError: for an unknown name or task, for a task that the file is not for, or where the
            weights cannot be had.
    """
    # Only here: importing the package registers names, no more.
    from virtex_det.checkpoint import TransferCheckpointer
    from virtex_det.model_zoo.backbone import load_backbone, random_backbone
    from virtex_det.modeling import build_model

    record = find(name)
    task = task or ("pretraining" if record.pretraining_config else "backbone")
    if not trained:
        logger.warning("%s: trained is False, so that all weights are at random", record.name)
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
            f"{record.name} ({record.family}: {record.pretraining}) has no pretraining model here; "
            f"its backbone alone is of use: virtex_det.load_backbone({PREFIX + record.name!r}), or "
            "fine-tune a detector from it."
        )
    return record.pretraining_config


def _warn_of_random_heads(name: str, at_random: set[str]) -> None:
    heads = sorted({tensor.partition(".")[0] for tensor in at_random} - {"pixel_mean", "pixel_std"})
    if heads:
        logger.warning(
            "%s is the backbone alone: %d tensors of %s are at random. Fine-tune the model "
            "before it predicts.",
            name,
            len(at_random),
            ", ".join(heads),
        )


def get_checkpoint_url(name: str) -> str:
    """Return the address that the weights of a name are published at.

    Raises:
        UserError: for an unknown name, and for weights that only a person can fetch.
    """
    record = find(name)
    if not record.urls:
        raise UserError(
            f"No direct address is known for {record.name}; see {record.page}. {record.note}".strip()
        )
    return record.urls[0]
