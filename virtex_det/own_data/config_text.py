"""A first config as a file that reads as a diff of its base, with the reason beside each value."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from virtex_det.escaping import visible
from virtex_det.own_data.first_config import Choice, FirstConfig

_COLUMN = 44  # where comments begin


def config_text(first: FirstConfig, head: Sequence[str]) -> str:
    """Return the YAML of a config.

    Args:
        first: the config.
        head: lines of the comment at its top.
    """
    tree: dict[str, Any] = {}
    for choice in first.choices:
        node = tree
        *sections, last = choice.key.split(".")
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = choice
    lines = [*(f"# {_plain(line)}".rstrip() for line in head), f"_BASE_: {first.base}"]
    return "\n".join([*lines, *_lines(tree, "")]) + "\n"


def _lines(tree: dict[str, Any], indent: str) -> Iterator[str]:
    for key, node in tree.items():
        if isinstance(node, Choice):
            line = f"{indent}{key}: {json.dumps(node.value)}"
            yield f"{line:{_COLUMN}} # {_plain(node.why)}" if node.why else line
        else:
            yield f"{indent}{key}:"
            yield from _lines(node, indent + "  ")


def _plain(text: str) -> str:
    """Return a text that cannot leave a comment: on one line, without characters that act."""
    return visible(text, "")
