"""Walking over the keys of a config."""

from collections.abc import Iterator
from typing import Any

from detectron2.config import CfgNode


def leaves(node: CfgNode) -> Iterator[tuple[str, Any]]:
    """Yield every key of a config by its dotted name, with its value."""
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from ((f"{key}.{inner}", leaf) for inner, leaf in leaves(value))
        else:
            yield key, value
