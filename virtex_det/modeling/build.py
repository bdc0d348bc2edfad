"""The one builder of models: for training, evaluation, prediction and the model zoo."""

import logging
from typing import Any

import torch
from detectron2 import modeling
from detectron2.config import CfgNode
from torch import nn

from virtex_det.config.data_names import open_number
from virtex_det.config.precision import computes_in_bfloat16, precision_in_words
from virtex_det.errors import UserError
from virtex_det.modeling.bf16 import use_bf16
from virtex_det.modeling.freezing import freeze_last_stage
from virtex_det.modeling.poolers import use_gather_roi_align

logger = logging.getLogger(__name__)


def build_model(cfg: CfgNode) -> nn.Module:
    """Build a config's model as Detectron2 does, then apply the speed-ups that the config allows.

    Args:
        cfg: the full config. On the device "meta" the model has shapes and no values, and no
            speed-ups.

    Returns:
        The model, with random weights, on MODEL.DEVICE, in training mode.

    Raises:
        UserError: the number of classes is 0, that of data which are not known here.
    """
    if key := open_number(cfg):
        raise UserError(
            f"{key} is 0, the number of classes of the data, which are not known here.\n"
            f"Set {key}, or pass the config through virtex_det.data.following.follow_data."
        )
    model = modeling.build_model(cfg)
    if cfg.MODEL.DEVICE == "meta":
        return model
    freeze_last_stage(cfg, model)
    if cfg.MODEL.DEVICE == "cpu" and not cfg.MODEL.KEYPOINT_ON:
        # CPU convolutions are fastest in this layout; results are the same up to rounding.
        # The loss of Detectron2's keypoint head fails with it.
        model.to(memory_format=torch.channels_last)
        if hasattr(model, "roi_heads"):
            model.roi_heads.register_forward_pre_hook(_in_layout_of_roi_align)
    if cfg.MODEL.GATHER_ROI_ALIGN:
        use_gather_roi_align(model)
    if computes_in_bfloat16(cfg):
        use_bf16(model)
    if cfg.SOLVER.AMP.ENABLED:
        logger.info(precision_in_words(cfg))
    return model


def _in_layout_of_roi_align(
    roi_heads: nn.Module, inputs: tuple[Any, ...]
) -> tuple[Any, ...] | None:
    """Give ROI heads in evaluation features in the layout that ROIAlign needs.

    ROIAlign would copy them itself, once for boxes and once more for masks. In training the sum of
    gradients would be in another order, which changes the last digit.
    """
    if roi_heads.training:
        return None
    images, features, *others = inputs
    return images, {name: each.contiguous() for name, each in features.items()}, *others
