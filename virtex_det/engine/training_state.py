"""Checks of the training state in a checkpoint before it is used: a damaged file may say anything."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch.optim import Optimizer

from virtex_det.engine.metrics_file import restore

_KINDS: dict[str, type | tuple[type, ...]] = {
    "iteration": int,
    "training_seconds": (int, float),
    "seed": int,
    "recent": Mapping,
    "origin": Mapping,
    "schedule": (Mapping, type(None)),
    "schedule_changes": Sequence,
}
_OF_ORIGIN = ("data", "images", "empty categories", "processes")


def check_training_state(state: Any) -> Mapping[str, Any]:
    """Return the state of a trainer, as a checkpoint holds it under "trainer"; the optimizer's own is not looked at.

    Args:
        state: of this version or an earlier one, which said less, or of Detectron2's own trainer.

    Raises:
        ValueError: says which of its values is none that a trainer writes.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"the trainer's state is {state!r:.80}")
    for name, kind in _KINDS.items():
        if name in state and (
            not isinstance(state[name], kind) or isinstance(state[name], bool | str)
        ):
            raise ValueError(f"its {name!r} is {state[name]!r:.80}")
    if state.get("iteration", 0) < 0:
        raise ValueError(f"its 'iteration' is {state['iteration']}")
    if state.get("origin") and not all(name in state["origin"] for name in _OF_ORIGIN):
        raise ValueError(f"its 'origin' is {state['origin']!r:.80}")
    if any(type(change) is not int for change in state.get("schedule_changes", ())):
        raise ValueError(f"its 'schedule_changes' are {state['schedule_changes']!r:.80}")
    try:
        restore(EventStorage(0), state.get("recent", {}))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"its 'recent' is {state['recent']!r:.80}") from error
    return state


def check_optimizer(optimizer: Optimizer) -> None:
    """See that an optimizer whose state was restored after at least one step has one, of the parameters' shapes.

    PyTorch takes a state that is empty or of other shapes, and goes on without momentum or fails at a later step.

    Args:
        optimizer: one that keeps a state, as AdamW, and SGD with momentum, do.

    Raises:
        ValueError: says what is missing, or of which shape it is.
    """
    keeps_state = any(group.get("momentum", 1) for group in optimizer.param_groups)
    states = [
        (parameter, state)
        for parameter, state in optimizer.state.items()
        if isinstance(parameter, torch.Tensor)
    ]
    if keeps_state and not states:  # what stands under a name is LookAhead's
        raise ValueError("the optimizer's state is empty, and it has done steps")
    for parameter, state in states:
        for name, value in state.items():
            if (
                isinstance(value, torch.Tensor)
                and value.numel() != 1
                and value.shape != parameter.shape
            ):
                shapes = f"{tuple(value.shape)}, and a parameter of {tuple(parameter.shape)}"
                raise ValueError(f"the optimizer's state has a {name} of shape {shapes}")
