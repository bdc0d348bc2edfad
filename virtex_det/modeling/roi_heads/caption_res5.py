"""The C4 head of every ResNet that `build_caption_resnet_backbone` builds."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads

from virtex_det.modeling.backbone import build_res5


@ROI_HEADS_REGISTRY.register()
class CaptionRes5ROIHeads(Res5ROIHeads):
    """`Res5ROIHeads` whose res5 is of the same ResNet variety as the backbone.

    Detectron2's always has three plain bottlenecks, which do not fit the backbone of CLIP, of a
    ResNet-D or of a ResNet-18.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Return the arguments of the constructor, from a config and the backbone's output shapes.

        Raises:
            UserError: no such ResNet exists.
        """
        return {**super().from_config(cfg, input_shape), "res5": build_res5(cfg)}
