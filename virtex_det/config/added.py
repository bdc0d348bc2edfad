"""Config keys that plugins add to those of the package, each with its role."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeVar

from detectron2.config import CfgNode

AddKeys = Callable[[CfgNode], Any]
Function = TypeVar("Function", bound=Callable)

FUNCTIONS: list[AddKeys] = []  # each adds its keys to a config
_caches: list[Any] = []


def add_keys_of_plugins(cfg: CfgNode) -> None:
    """Add the keys of all plugins to a config, in place."""
    for function in FUNCTIONS:
        function(cfg)


def cached(function: Function) -> Function:
    """Cache the results of a function of the set of keys until a plugin adds some."""
    with_cache: Any = cache(function)
    _caches.append(with_cache)
    return with_cache


def forget_results() -> None:
    """Empty the caches of all functions that ``cached`` wraps."""
    for with_cache in _caches:
        with_cache.cache_clear()


def below(key: str, sections: Iterable[str]) -> bool:
    """Say whether a dotted key is one of the sections or lies below one."""
    return any(f"{key}.".startswith(f"{section}.") for section in sections)
