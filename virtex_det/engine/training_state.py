"""Checks of the training state in a checkpoint, which may be damaged, before it is used."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch.optim import Optimizer

from virtex_det.engine.metrics_file import restore

_KINDS: dict[str, type | tuple[type, ...]] = {
    "iteration": int,
    "training_seconds": (int, float),
    "cpu_seconds": (int, float),
    "seed": int,
    "recent": Mapping,
    "origin": Mapping,
    "schedule": (Mapping, type(None)),
    "schedule_changes": Sequence,
    "evaluations": Sequence,
}
_OF_ORIGIN = ("data", "images", "empty categories", "processes")


def check_training_state(state: Any) -> Mapping[str, Any]:
    """Return the state of a trainer, which a checkpoint holds under "trainer", if it is valid.

    The optimizer's state in it is left to ``check_optimizer``.

    Args:
        state: of this version, of an earlier one, which has fewer values, or of Detectron2's own
            trainer.

    Raises:
        ValueError: says which value is invalid.
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
    for name in ("schedule_changes", "evaluations"):
        if any(type(iteration) is not int for iteration in state.get(name, ())):
            raise ValueError(f"its {name!r} is {state[name]!r:.80}")
    try:
        restore(EventStorage(0), state.get("recent", {}))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"its 'recent' is {state['recent']!r:.80}") from error
    return state


def check_optimizer(optimizer: Optimizer) -> None:
    """Check that a restored optimizer has a state, with the shapes of its parameters.

    PyTorch accepts a state that is empty or has other shapes, and then continues without momentum
    or fails at a later step.

    Args:
        optimizer: restored after at least one step.

    Raises:
        ValueError: says what is missing, or which shape is wrong.
    """
    keeps_state = any(group.get("momentum", 1) for group in optimizer.param_groups)
    states = [
        (parameter, state)
        for parameter, state in optimizer.state.items()
        if isinstance(parameter, torch.Tensor)
    ]
    if keeps_state and not states:  # LookAhead's state has a name as its key, not a parameter
        raise ValueError("the optimizer's state is empty, although it has done steps")
    for parameter, state in states:
        for name, value in state.items():
            is_scalar = not isinstance(value, torch.Tensor) or value.numel() == 1
            if not is_scalar and value.shape != parameter.shape:
                raise ValueError(
                    f"the optimizer's state has a {name} of shape {tuple(value.shape)} for a "
                    f"parameter of shape {tuple(parameter.shape)}"
                )
