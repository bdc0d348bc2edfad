"""Walking over the keys of a config."""

import json
from collections.abc import Iterator, Mapping
from typing import Any


def leaves(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and value of every key of a config or of a config file's mapping."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", leaf) for inner, leaf in leaves(value))
        else:
            yield key, value


def plain_leaves(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values by dotted name in JSON's types, so that a tuple equals a list."""
    return {key: json.loads(json.dumps(value)) for key, value in leaves(node)}
