"""LookAhead (Zhang et al. 2019), as hooks on any PyTorch optimizer."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_STATE = "lookahead"  # PyTorch saves and restores optimizer state under such names unchanged


def add_lookahead(optimizer: Optimizer, steps: int, alpha: float) -> None:
    """Add LookAhead: every `steps` updates, slow weights move towards the optimizer's.

    Then the fast weights are set to the slow ones. The slow weights start as a copy of the
    parameters at the first update, so weights may be loaded before it. They are part of the
    optimizer's state, so training resumes exactly.

    Args:
        optimizer: updates the fast weights; schedulers and gradient scalers keep using it.
        steps: updates between two moves of the slow weights.
        alpha: fraction of the way to the fast weights that the slow weights move.
    """

    def remember(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if _STATE not in optimizer.state:
            slow = [parameter.detach().clone() for parameter in parameters_of(optimizer)]
            optimizer.state[_STATE] = {"updates": 0, "slow": slow}  # type: ignore[index]

    @torch.no_grad()
    def follow(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        state = optimizer.state[_STATE]  # type: ignore[index]
        state["updates"] += 1
        if state["updates"] % steps:
            return
        for index, fast in enumerate(parameters_of(optimizer)):
            # A checkpoint may have been read on another device.
            slow = state["slow"][index] = state["slow"][index].to(fast.device)
            fast.copy_(slow.lerp_(fast, alpha))

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(follow)


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """Return the parameters of all groups, in order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
