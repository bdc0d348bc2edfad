"""FREEZE_AT of a C4 detector, whose last stage (res5) is in the ROI heads, not in the backbone."""

import logging

from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase
from torch import nn

_WHOLE = 5  # MODEL.BACKBONE.FREEZE_AT that freezes the whole ResNet

logger = logging.getLogger(__name__)


def freeze_last_stage(cfg: CfgNode, model: nn.Module) -> None:
    """Freeze res5 in the ROI heads where MODEL.BACKBONE.FREEZE_AT freezes all of the ResNet.

    Detectron2 freezes its backbone only, so FREEZE_AT 5 would leave the res5 of a C4 detector in
    training. An extra norm after res5 is not part of the ResNet and stays in training.
    """
    res5 = getattr(getattr(model, "roi_heads", None), "res5", None)
    if cfg.MODEL.BACKBONE.FREEZE_AT < _WHOLE or res5 is None:
        return
    blocks = [block for block in res5.children() if isinstance(block, CNNBlockBase)]
    for block in blocks:
        block.freeze()
    logger.info(
        "MODEL.BACKBONE.FREEZE_AT %d: roi_heads.res5 is frozen too", cfg.MODEL.BACKBONE.FREEZE_AT
    )
