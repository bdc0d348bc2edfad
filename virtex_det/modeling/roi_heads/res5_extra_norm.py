"""The C4 head of the MoCo and VirTex detection protocols: an extra norm after res5."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY

from virtex_det.errors import UserError
from virtex_det.modeling.roi_heads.caption_res5 import CaptionRes5ROIHeads


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsExtraNorm(CaptionRes5ROIHeads):
    """`CaptionRes5ROIHeads` with a norm after the last block, of type MODEL.RESNETS.NORM.

    The norm is named `res5.norm`.

    Differently pretrained backbones have outputs of different scale; the norm lets one schedule fit
    all (He et al. 2020, "Momentum Contrast", sec. 4.2).
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Return the arguments of the constructor, from a config and the backbone's output shapes.

        Raises:
            UserError: MODEL.RESNETS.NORM names no norm.
        """
        if not cfg.MODEL.RESNETS.NORM:
            raise UserError(
                "MODEL.ROI_HEADS.NAME is Res5ROIHeadsExtraNorm, but MODEL.RESNETS.NORM is empty. "
                "Set MODEL.RESNETS.NORM (the protocol has SyncBN), or MODEL.ROI_HEADS.NAME to "
                "CaptionRes5ROIHeads."
            )
        arguments = super().from_config(cfg, input_shape)
        res5 = arguments["res5"]
        res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, res5[-1].out_channels))
        return arguments
