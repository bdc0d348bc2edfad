"""bfloat16 (bf16) arithmetic for a whole model."""

import torch
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


def use_bf16(model: nn.Module) -> nn.Module:
    """Run a model's forward, in place, under bf16 autocast and with channels-last memory.

    Parameters stay float32 and keep their names, so checkpoints and optimizers do not change.
    Results change in about the third digit. A detector's scores are computed in float32: in bf16
    most confident scores would tie.

    Args:
        model: already on its device.

    Returns:
        The same model.
    """
    model.to(memory_format=torch.channels_last)
    device_type = next(model.parameters()).device.type
    model.forward = torch.autocast(device_type, dtype=torch.bfloat16)(model.forward)
    if device_type == "cpu":
        # In bf16 the backward pass of PyTorch's fused attention takes ten times that of the plain
        # one (torch 2.14), as much as the rest of a captioning step.
        model.forward = sdpa_kernel(SDPBackend.MATH)(model.forward)
    for layers in model.modules():
        if not isinstance(layers, FastRCNNOutputLayers):
            continue
        layers.register_forward_pre_hook(_in_float32)
        layers.forward = torch.autocast(device_type, enabled=False)(layers.forward)
    return model


def _in_float32(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.float() for tensor in inputs)
