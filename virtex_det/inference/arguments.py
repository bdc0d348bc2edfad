"""Checks of what a caller in Python gives to a trained model."""

from typing import Any

import numpy as np

from virtex_det.config.rules import Rule
from virtex_det.errors import UserError
from virtex_det.yaml_files import shortened


def check_argument(name: str, value: Any, rule: Rule) -> None:
    """Refuse a value that breaks a rule; numbers of NumPy are numbers, too.

    Args:
        name: what the value is, at the beginning of the message.
        value: of the argument.
        rule: what is expected.

    Raises:
        UserError: names the argument, its value, and what is expected.
    """
    if not rule.holds(plain(value)):
        raise UserError(f"{name} is {shortened(value)}; expected {rule.expected}.")


def plain(value: Any) -> Any:
    """Return a number of NumPy as one of Python, and any other value as it is."""
    return value.item() if isinstance(value, np.generic) else value
