"""bf16 arithmetic for a whole model."""

import torch
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from torch import nn


def use_bf16(model: nn.Module) -> nn.Module:
    """Run a model's forward, in place, under bf16 autocast and with channels-last memory.

    Parameters stay float32 under their own names, so checkpoints and optimizers are as without. Results change in about
    the third digit, but a detector's scores are computed in float32: in bf16 most confident ones would tie.

    Args:
        model: already on its device.

    Returns:
        The same model.
    """
    model.to(memory_format=torch.channels_last)
    device_type = next(model.parameters()).device.type
    model.forward = torch.autocast(device_type, dtype=torch.bfloat16)(model.forward)
    for layers in (module for module in model.modules() if isinstance(module, FastRCNNOutputLayers)):
        layers.register_forward_pre_hook(lambda module, inputs: tuple(tensor.float() for tensor in inputs))
        layers.forward = torch.autocast(device_type, enabled=False)(layers.forward)
    return model
