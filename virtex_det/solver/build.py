"""The optimizer of a config: update rule, parameter groups, and hooks around a step."""

import re
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params, reduce_param_groups
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer

from virtex_det.config.precision import scales_losses
from virtex_det.errors import UserError
from virtex_det.solver.lookahead import add_lookahead, parameters_of

# The ResNet in any model: the last stage of a C4 detector is in the head; FPN's own layers are left
# out.
_BACKBONE = re.compile(r"backbone\.(?!fpn_|top_block\.)|roi_heads\.res5\.\d")


def build_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """Build the optimizer of cfg.SOLVER, with gradient clipping and LookAhead where enabled.

    Args:
        cfg: a config.
        model: its parameters that require a gradient are optimized.

    Raises:
        UserError: SOLVER.OPTIMIZER or SOLVER.CLIP_GRADIENTS.CLIP_TYPE is unknown, SOLVER.NO_DECAY
            is not a regular expression, or SOLVER.BACKBONE_MULTIPLIER is negative.
    """
    optimizer = _update_rule(cfg, parameter_groups(cfg, model))
    optimizer.register_load_state_dict_post_hook(_match_layout)
    if cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        _add_gradient_clipping(cfg, optimizer)
    if cfg.SOLVER.LOOKAHEAD.ENABLED:
        add_lookahead(optimizer, cfg.SOLVER.LOOKAHEAD.STEPS, cfg.SOLVER.LOOKAHEAD.ALPHA)
    return optimizer


def parameter_groups(cfg: CfgNode, model: nn.Module) -> list[dict[str, Any]]:
    """Group a model's parameters by learning rate and weight decay, one group per pair of values.

    Detectron2's keys come first (WEIGHT_DECAY_NORM, WEIGHT_DECAY_BIAS, BIAS_LR_FACTOR);
    BACKBONE_MULTIPLIER and NO_DECAY overrule them. NO_DECAY may match anywhere in a parameter's
    name.
    """
    solver = cfg.SOLVER
    groups = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if solver.BACKBONE_MULTIPLIER != 1.0:
        backbone = [p for name, p in named if is_in_backbone(name)]
        groups.append({"params": backbone, "lr": _backbone_rate(solver)})
    if solver.NO_DECAY:
        exempt = _compile(solver.NO_DECAY)
        groups.append(
            {"params": [p for name, p in named if exempt.search(name)], "weight_decay": 0.0}
        )
    return reduce_param_groups(groups)


def is_in_backbone(name: str) -> bool:
    """Return whether SOLVER.BACKBONE_MULTIPLIER is for a parameter of this name in a model."""
    return _BACKBONE.match(name) is not None


def _backbone_rate(solver: CfgNode) -> float:
    if solver.BACKBONE_MULTIPLIER < 0:
        raise UserError(
            f"SOLVER.BACKBONE_MULTIPLIER is {solver.BACKBONE_MULTIPLIER}, but must be 0 or more. "
            "At 1 the backbone learns at SOLVER.BASE_LR."
        )
    return solver.BASE_LR * solver.BACKBONE_MULTIPLIER


def _update_rule(cfg: CfgNode, groups: list[dict[str, Any]]) -> Optimizer:
    solver = cfg.SOLVER
    rule: dict[str, Any] = {
        "lr": solver.BASE_LR,
        "weight_decay": solver.WEIGHT_DECAY,
        "fused": _can_fuse(cfg, groups),
    }
    if solver.OPTIMIZER == "SGD":
        return torch.optim.SGD(groups, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV, **rule)
    if solver.OPTIMIZER == "AdamW":
        return torch.optim.AdamW(groups, **rule)
    raise UserError(f'SOLVER.OPTIMIZER is {solver.OPTIMIZER!r}, but must be "SGD" or "AdamW".')


def _can_fuse(cfg: CfgNode, groups: list[dict[str, Any]]) -> bool | None:
    """Fuse on CPU and CUDA, but leave the choice to PyTorch under gradient scaling.

    A fused step unscales the gradients itself, so they would be clipped before that.
    """
    parameters = (parameter for group in groups for parameter in group["params"])
    fits = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    return True if fits and not scales_losses(cfg) else None


def _match_layout(optimizer: Optimizer) -> None:
    """Give loaded state the memory layout of its parameters.

    A fused step on CPU assumes it. Without it, the values would be mixed up in a run that started
    without channels-last memory and resumes with it.
    """
    for parameter in parameters_of(optimizer):
        state = optimizer.state.get(parameter, {})
        for name, value in state.items():
            if (
                isinstance(value, Tensor)
                and value.shape == parameter.shape
                and value.stride() != parameter.stride()
            ):
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _add_gradient_clipping(cfg: CfgNode, optimizer: Optimizer) -> None:
    """Clip before each step, by Detectron2's "value", "norm" or "full_model" (norm over all).

    Detectron2 clips in a subclass's step, which calls its parent's: hooks, and with them LookAhead,
    would run twice.
    """
    settings = cfg.SOLVER.CLIP_GRADIENTS
    clippers: dict[str, Callable[[list[Tensor]], object]] = {
        "value": lambda parameters: clip_grad_value_(parameters, settings.CLIP_VALUE),
        "norm": lambda parameters: [
            clip_grad_norm_(p, settings.CLIP_VALUE, settings.NORM_TYPE) for p in parameters
        ],
        "full_model": lambda parameters: clip_grad_norm_(
            parameters, settings.CLIP_VALUE, settings.NORM_TYPE
        ),
    }
    if settings.CLIP_TYPE not in clippers:
        raise UserError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is {settings.CLIP_TYPE!r}, but must be one of "
            f"{list(clippers)}."
        )

    def clip(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        clippers[settings.CLIP_TYPE](parameters_of(optimizer))

    optimizer.register_step_pre_hook(clip)


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"SOLVER.NO_DECAY is {pattern!r}, which is not a regular expression: {error}. "
            r"Write it like '.*textual\.(embedding|transformer).*(norm.*|bias)'."
        ) from error
