import pytest

from virtex_det.engine.training_state import check_training_state

SOUND = {
    "iteration": 3,
    "hooks": {},
    "step": {"optimizer": {}},
    "training_seconds": 1.5,
    "seed": 0,
    "recent": {"total_loss": {"smooth": True, "values": [(1.0, 3)]}},
    "origin": {"data": {}, "images": {"number": 3}, "empty categories": [], "processes": 1},
    "schedule": {"MAX_ITER": 4, "STEPS": [3]},
    "schedule_changes": [2],
}


@pytest.mark.parametrize("state", [SOUND, {}, {"iteration": 3, "_trainer": {}}, {"origin": {}, "schedule": None}])
def test_what_a_trainer_of_any_version_writes_is_taken(state):
    assert check_training_state(state) is state


@pytest.mark.parametrize("state", [None, 3, [1], "x"])
def test_what_is_no_state_is_named(state):
    with pytest.raises(ValueError, match="the trainer's state is"):
        check_training_state(state)


ODD = {
    "iteration": (None, "x", -5, True, 2.5),
    "training_seconds": (None, "x", True, [1]),
    "seed": (None, "x", 2.5),
    "recent": (None, 3, {"loss": 3}, {"loss": {"values": [1]}}, {"loss": {"values": [(1, 2)]}}),
    "origin": (None, 3, {"data": {}}),
    "schedule": (3, "x"),
    "schedule_changes": (None, 3, "x", ["x"], [2.5], [True]),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ODD.items() for value in values])
def test_a_value_that_no_trainer_writes_is_named(name, value):
    with pytest.raises(ValueError, match=f"its '{name}'"):
        check_training_state(SOUND | {name: value})
