"""A detector's output before its masks are pasted into the image."""

import contextlib
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN, detector_postprocess
from detectron2.structures import Instances, ROIMasks
from torch import nn
from torch.nn.parallel import DistributedDataParallel

# What UnpastedMasks calls its output, so that it is not taken for what a detector returns otherwise.
UNPASTED = "unpasted_instances"


class UnpastedMasks(nn.Module):
    """A Detectron2 R-CNN without its last step: boxes stay in the pixels of its input, masks within their boxes.

    Pasting masks into the image and encoding them is three quarters of what Detectron2's evaluation of masks costs.
    """

    def __init__(self, model: GeneralizedRCNN, bf16: bool = False) -> None:
        """
        Args:
            model: whose ``inference`` is called in place of its ``forward``.
            bf16: under autocast, as ``MODEL.BF16`` has it in ``forward``.
        """
        super().__init__()
        self.model = model
        self.training = model.training
        self.bf16 = bf16

    @staticmethod
    def of(model: nn.Module, bf16: bool = False) -> nn.Module:
        """Return a model so wrapped, taken out of DDP; one that is no R-CNN of Detectron2's own kind as it is."""
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        if isinstance(inner, GeneralizedRCNN) and type(inner).inference is GeneralizedRCNN.inference:
            return UnpastedMasks(inner, bf16)
        return model

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        device = self.model.device.type
        with torch.autocast(device, dtype=torch.bfloat16) if self.bf16 else contextlib.nullcontext():
            found = self.model.inference(batched_inputs, do_postprocess=False)
        return [{UNPASTED: instances} for instances in found]


def scale(instances: Instances, example: dict[str, Any]) -> Instances:
    """Bring boxes into the pixels of the image, as Detectron2's last step does, and leave masks in their boxes.

    Args:
        instances: of one image, as :class:`UnpastedMasks` returned them.
        example: the image's dataset dict; "height" and "width" say its size.

    Returns:
        New instances; masks are the field "box_masks". # shape: (N, M, M)
    """
    fields = dict(instances.get_fields())
    masks = fields.pop("pred_masks", None)
    scaled = Instances(instances.image_size, **fields)
    scaled.pred_boxes = instances.pred_boxes.clone()
    if masks is not None:
        scaled.box_masks = masks.tensor if isinstance(masks, ROIMasks) else masks[:, 0]
    height, width = instances.image_size
    return detector_postprocess(scaled, example.get("height", height), example.get("width", width))
