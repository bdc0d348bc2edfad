"""bf16 arithmetic for a whole model."""

import torch
from torch import nn


def use_bf16(model: nn.Module) -> nn.Module:
    """Run a model's forward, in place, under bf16 autocast and with channels-last memory.

    Parameters stay float32 under their own names, so checkpoints and optimizers are as without. Results change in about
    the third digit.

    Args:
        model: already on its device.

    Returns:
        The same model.
    """
    model.to(memory_format=torch.channels_last)
    device_type = next(model.parameters()).device.type
    model.forward = torch.autocast(device_type, dtype=torch.bfloat16)(model.forward)  # type: ignore[method-assign]
    return model
