import pytest
import torch

from virtex_det.engine.training_state import check_optimizer, check_training_state

SOUND = {
    "iteration": 3,
    "hooks": {},
    "step": {"optimizer": {}},
    "training_seconds": 1.5,
    "cpu_seconds": 2.5,
    "seed": 0,
    "recent": {"total_loss": {"smooth": True, "values": [(1.0, 3)]}},
    "origin": {"data": {}, "images": {"number": 3}, "empty categories": [], "processes": 1},
    "schedule": {"MAX_ITER": 4, "STEPS": [3]},
    "schedule_changes": [2],
    "evaluations": [2],
}


@pytest.mark.parametrize(
    "state", [SOUND, {}, {"iteration": 3, "_trainer": {}}, {"origin": {}, "schedule": None}]
)
def test_what_a_trainer_of_any_version_writes_is_taken(state):
    assert check_training_state(state) is state


@pytest.mark.parametrize("state", [None, 3, [1], "x"])
def test_an_invalid_state_is_named(state):
    with pytest.raises(ValueError, match="the trainer's state is"):
        check_training_state(state)


ODD = {
    "iteration": (None, "x", -5, True, 2.5),
    "training_seconds": (None, "x", True, [1]),
    "cpu_seconds": (None, "x", True, [1]),
    "seed": (None, "x", 2.5),
    "recent": (None, 3, {"loss": 3}, {"loss": {"values": [1]}}, {"loss": {"values": [(1, 2)]}}),
    "origin": (None, 3, {"data": {}}),
    "schedule": (3, "x"),
    "schedule_changes": (None, 3, "x", ["x"], [2.5], [True]),
    "evaluations": (None, 3, "x", ["x"], [2.5], [True]),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in ODD.items() for value in values]
)
def test_a_value_that_no_trainer_writes_is_named(name, value):
    with pytest.raises(ValueError, match=f"its '{name}'"):
        check_training_state(SOUND | {name: value})


def stepped(kind, **options):
    """Return an optimizer that has done a step."""
    weight = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = kind([weight], lr=0.1, **options)
    weight.sum().backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("kind", "options"), [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.AdamW, {})]
)
def test_an_optimizer_that_lost_its_state_or_has_that_of_another_model_is_refused(kind, options):
    optimizer = stepped(kind, **options)
    check_optimizer(optimizer)
    [state] = optimizer.state.values()
    name = next(name for name, value in state.items() if value.numel() > 1)
    state[name] = torch.zeros(3)
    with pytest.raises(
        ValueError, match=rf"a {name} of shape \(3,\) for a parameter of .* \(2, 3\)"
    ):
        check_optimizer(optimizer)
    optimizer.state.clear()
    with pytest.raises(ValueError, match="state is empty"):
        check_optimizer(optimizer)


def test_an_optimizer_without_momentum_keeps_no_state():
    optimizer = stepped(torch.optim.SGD)
    optimizer.state.clear()
    check_optimizer(optimizer)
