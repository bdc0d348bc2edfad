"""Rules for values of config keys: numbers in a range, known names, lists of them."""

import difflib
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from fvcore.common.registry import Registry

LARGEST = 2**31 - 1  # fits PyTorch's sizes and NumPy's seeds; a loop of this length ends


class Rule(NamedTuple):
    """A condition for a value.

    Attributes:
        expected: the condition in words, for a message after "must be".
        holds: whether a value meets the condition.
        names: the known names; a message lists the nearest.
    """

    expected: str
    holds: Callable[[Any], bool]
    names: Callable[[], Iterable[str]] = tuple

    def nearest(self, value: Any) -> list[str]:
        """Return the known names that are most similar to a value."""
        known = {name.lower(): name for name in self.names() if name}
        return [
            known[name]
            for name in difflib.get_close_matches(str(value).lower(), list(known), n=3, cutoff=0.5)
        ]


def number(
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    infinite: bool = False,
) -> Rule:
    """A float or integer from ``low`` to ``high``, or strictly between ``above`` and ``below``."""

    def holds(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return low <= value <= high and above < value and (value < below or infinite)

    return Rule(f"a number{_range(low, high, above, below)}", holds)


def whole(low: int, high: int = LARGEST) -> Rule:
    """A whole number from ``low`` to ``high``."""
    return Rule(
        f"a whole number{_range(low, high, -math.inf, math.inf)}",
        lambda value: _is_whole(value, low, high),
    )


def one_of(*names: str) -> Rule:
    """One of a few names."""
    shown = ", ".join(f'"{name}"' for name in names)
    return Rule(f"one of {shown}", lambda value: value in names, lambda: names)


def registered(registry: Callable[[], Registry], *others: str) -> Rule:
    """A name that a registry holds, or one of the others."""

    def names() -> list[str]:
        return [*others, *(name for name, _ in registry())]

    return Rule("a registered name", lambda value: value in names(), names)


def several(each: Rule, low: int = 0, high: int | None = None) -> Rule:
    """A list or tuple of ``low`` to ``high`` values that each obey one rule."""
    limit = math.inf if high is None else high

    def holds(value: Any) -> bool:
        return (
            isinstance(value, list | tuple)
            and low <= len(value) <= limit
            and all(map(each.holds, value))
        )

    count = (
        f" of {low}"
        if low == high
        else f" of {low} to {high}"
        if high
        else f" of {low} or more"
        if low
        else ""
    )
    return Rule(f"a list{count}, each entry {each.expected}", holds, each.names)


def either(first: Rule, second: Rule) -> Rule:
    """A value that obeys one of two rules."""
    return Rule(
        f"{first.expected}, or {second.expected}",
        lambda value: first.holds(value) or second.holds(value),
    )


def exactly(value: Any, meaning: str) -> Rule:
    """One value that has a meaning of its own."""
    return Rule(f"{value} ({meaning})", lambda found: type(found) is type(value) and found == value)


def text() -> Rule:
    """One line of text that is not empty."""
    return Rule("text", lambda value: _is_line(value) and bool(value.strip()))


def line() -> Rule:
    """One line of text, such as a path or a name; it may be empty, but not blanks alone."""
    return Rule("one line of text", lambda value: value == "" or text().holds(value))


def anything() -> Rule:
    """Any value."""
    return Rule("a value", lambda value: True)


def switch() -> Rule:
    """True or False."""
    return Rule("True or False", lambda value: isinstance(value, bool))


def regular_expression() -> Rule:
    """A pattern of Python's re."""
    return Rule("a regular expression", _compiles)


def _compiles(value: Any) -> bool:
    try:
        re.compile(value)
    except (re.error, TypeError):
        return False
    return True


def _is_line(value: Any) -> bool:
    if not isinstance(value, str) or any(character in value for character in "\0\n\r"):
        return False
    # A surrogate, half a character, cannot be written to a file.
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _is_whole(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _range(low: float, high: float, above: float, below: float) -> str:
    bounds = [
        f"from {_shown(low)}"
        if math.isfinite(low)
        else f"above {_shown(above)}"
        if math.isfinite(above)
        else "",
        f"to {_shown(high)}"
        if math.isfinite(high)
        else f"below {_shown(below)}"
        if math.isfinite(below)
        else "",
    ]
    if math.isfinite(low) and not (math.isfinite(high) or math.isfinite(below)):
        bounds[1] = "on"
    return "".join(f" {bound}" for bound in bounds if bound)


def _shown(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"
