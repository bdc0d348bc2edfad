"""YAML from users, read within bounds: plain values only, each key once, and config files with their ``_BASE_``."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from virtex_det.errors import UserError
from virtex_det.files import read_regular

MAX_BYTES = 4 << 20
MAX_VALUES = 200_000  # an alias counts as all that it repeats
MAX_DEPTH = 50
MAX_BASES = 100  # files that a config is made of
_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # many times as fast, where PyYAML has it


class _Loader(_SafeLoader):  # type: ignore[misc, valid-type]
    """Refuses numbers of more than 64 bits, which cannot be used and may be too long to print."""

    def construct_int(self, node: yaml.ScalarNode) -> int:
        number: int = self.construct_yaml_int(node)
        if number.bit_length() > 64:
            raise yaml.constructor.ConstructorError(None, None, "a whole number of more than 64 bits", node.start_mark)
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)


def read_yaml(path: str | Path) -> Any:
    """Return the content of a YAML file as plain values.

    Raises:
        UserError: it is not a regular file, or not plain YAML within MAX_BYTES, MAX_VALUES and MAX_DEPTH.
    """
    return parse_yaml(read_regular(path, MAX_BYTES), str(path))


def parse_yaml(content: str | bytes, where: str) -> Any:
    """Return the plain values of a YAML text; no tag makes an object, and no key stands twice in a mapping.

    Args:
        content: the text, at most MAX_BYTES of it.
        where: what the text is, for messages.

    Raises:
        UserError: it is something else.
    """
    try:
        _check_size(content)
        return _construct(content)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError, AttributeError) as error:
        reason = _in_one_screen(error)
        raise UserError(f"{where} cannot be read as plain YAML: {reason}") from error


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Return a config file's keys, laid over those of its ``_BASE_``, as Detectron2 reads it, from local files only.

    ``_BASE_`` is a file name or a list of them; each is relative to the file that names it, and ``~`` is the user's
    folder.

    Raises:
        UserError: a file is not as ``read_yaml`` wants it or not a mapping; bases are in a circle, more than MAX_BASES,
            or addresses.
    """
    return _read_config(Path(path), (), iter(range(MAX_BASES)))


def _read_config(path: Path, above: tuple[str, ...], left: Iterator[int]) -> dict[str, Any]:
    real = os.path.realpath(path)
    if real in above:
        circle = " -> ".join([*above[above.index(real) :], real])
        raise UserError(f"_BASE_ leads in a circle: {circle}\nTake _BASE_ out of one of them.")
    if next(left, None) is None:
        raise UserError(f"{(*above, real)[0]} is made of more than {MAX_BASES} _BASE_ files, the most that are read.")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is no config: expected lines of KEY: VALUE, found {_short(content)}.")
    _check_keys(content, path)
    merged: dict[str, Any] = {}
    for base in _bases(content, path):
        _merge(_read_config(base, (*above, real), left), merged, base)
    _merge({key: value for key, value in content.items() if key != "_BASE_"}, merged, path)
    return merged


def _check_keys(content: dict[Any, Any], path: Path) -> None:
    for key, value in content.items():
        if not isinstance(key, str):
            raise UserError(f"{path}: the key {_short(key)} is not text. Config keys are names such as MODEL.")
        if isinstance(value, dict):
            _check_keys(value, path)


def _bases(content: dict[str, Any], path: Path) -> list[Path]:
    named = content.get("_BASE_", [])
    names = named if isinstance(named, list) else [named]
    for name in names:
        if not isinstance(name, str) or not name or "\0" in name:
            raise UserError(
                f"{path}: _BASE_ is {_short(named)}; expected the name of a config file, or a list of them."
            )
        if "://" in name:
            raise UserError(
                f"{path}: _BASE_ is the address {_short(name)}, and configs are read from local files only. "
                "Fetch the file, look at it, and name it here."
            )
    return [path.parent / os.path.expanduser(name) for name in names]  # noqa: PTH111  (Path's raises for ~nobody)


def _merge(upper: dict[str, Any], lower: dict[str, Any], path: Path) -> None:
    for key, value in upper.items():
        if isinstance(value, dict) and key in lower:
            if not isinstance(lower[key], dict):
                raise UserError(f"{path}: {key} holds keys, and the _BASE_ has the value {_short(lower[key])} there.")
            _merge(value, lower[key], path)
        else:
            lower[key] = value


def _check_size(content: str | bytes) -> None:
    """Refuse what would grow without end when it is walked: depth, and aliases that repeat aliases."""
    sizes: dict[str, tuple[int, int]] = {}  # of an anchor: values and depth of what it names
    opened: list[tuple[str | None, int, int]] = [(None, 0, 0)]  # anchor, values and depth so far of what is open
    for event in yaml.parse(content, Loader=_SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, 1, 1))
            if len(opened) > MAX_DEPTH:
                raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
            continue
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in [anchor for anchor, _, _ in opened]:
                raise ValueError(f"the alias *{event.anchor:.50} stands within what it repeats")
            values, depth = sizes.get(event.anchor, (1, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, values, depth = opened.pop()
            sizes |= {anchor: (values, depth)} if anchor else {}
        elif isinstance(event, yaml.ScalarEvent):
            values, depth = 1, 1
            sizes |= {event.anchor: (values, depth)} if event.anchor else {}
        else:
            continue
        outer, before, deepest = opened.pop()
        if before + values > MAX_VALUES:
            raise ValueError(f"it holds more than {MAX_VALUES:,} values, aliases written out")
        if len(opened) + depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep, aliases written out")
        opened.append((outer, before + values, max(deepest, depth + 1)))


def _construct(content: str | bytes) -> Any:
    loader = _Loader(content)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_repeated_keys(loader, node, set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_repeated_keys(loader: Any, node: yaml.Node, done: set[int]) -> None:
    """Refuse a key that stands twice in a mapping; plain YAML keeps the last one in silence."""
    if id(node) in done or isinstance(node, yaml.ScalarNode):
        return
    done.add(id(node))
    pairs = node.value if isinstance(node, yaml.MappingNode) else [(None, item) for item in node.value]
    seen: set[Any] = set()
    for key, value in pairs:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            name = loader.construct_object(key)
            if name in seen:
                raise ValueError(f"line {key.start_mark.line + 1}: {_short(name)} stands twice")
            seen.add(name)
        _refuse_repeated_keys(loader, value, done)


def _in_one_screen(error: Exception) -> str:
    lines = [line[:200] for line in str(error).splitlines()[:8]]
    return "\n".join(lines) or type(error).__name__


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
