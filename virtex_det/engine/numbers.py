"""State that a model keeps outside its tensors, as RetinaNet's running mean of positive anchors."""

from typing import Any

from torch import nn

Values = dict[str, dict[str, Any]]  # by module and attribute


def numbers_of(model: nn.Module) -> Values:
    """Return the plain numbers among the attributes of a model's modules."""
    found = {}
    for name, module in model.named_modules():
        found[name] = {
            key: value for key, value in vars(module).items() if type(value) in (int, float)
        }
    return found


def changed_numbers(model: nn.Module, before: Values) -> Values:
    """Return the numbers that differ from those in ``before``."""
    found = {}
    for name, numbers in numbers_of(model).items():
        changed = {
            key: value for key, value in numbers.items() if before.get(name, {}).get(key) != value
        }
        if changed:
            found[name] = changed
    return found


def set_numbers(model: nn.Module, values: Values) -> None:
    """Set numbers that ``changed_numbers`` returned."""
    modules = dict(model.named_modules())
    for name, numbers in values.items():
        for key, value in numbers.items():
            setattr(modules[name], key, value)
