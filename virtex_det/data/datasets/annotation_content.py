"""A cache of parsed annotation files, for several steps that need the same file."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from virtex_det.data.datasets.typed_annotations import decode_annotations
from virtex_det.text_files import parse_json, read_bytes

_State = tuple[int, ...]
_Read = TypeVar("_Read")
# The files parsed within ``parsing_once``, by path; None outside, where nothing is kept.
_parsed: dict[Path, tuple[_State, Any]] | None = None
_others: dict[Any, Any] = {}  # what ``read_once`` read within the block


@contextmanager
def parsing_once() -> Iterator[None]:
    """Parse each unchanged file only once within the block; forget everything at its end."""
    global _parsed
    before, _parsed = _parsed, {} if _parsed is None else _parsed
    try:
        yield
    finally:
        _parsed = before
        if before is None:
            _others.clear()


def read_annotations(path: str | Path, expected: str) -> Any:
    """Return the content of a JSON file; do not change it, others may get the same objects.

    Args:
        path: path of the file.
        expected: kind of file, for the error message.

    Returns:
        The content of the JSON, a ``TypedContent`` where its annotations are valid.

    Raises:
        UserError: as ``read_json``.
    """
    path = Path(path)
    state = None if _parsed is None else _state(path)
    if _parsed is None or state is None:
        return _read(path, expected)
    if path not in _parsed or _parsed[path][0] != state:
        _parsed[path] = state, _read(path, expected)
    return _parsed[path][1]


def read_once(key: Hashable, read: Callable[[], _Read]) -> _Read:
    """Return what a function reads, within ``parsing_once`` only once for each key."""
    if _parsed is None:
        return read()
    if key not in _others:
        _others[key] = read()
    return _others[key]


def _read(path: Path, expected: str) -> Any:
    encoded = read_bytes(path, expected)
    content = decode_annotations(encoded)
    return parse_json(encoded, str(path)) if content is None else content


def _state(path: Path) -> _State | None:
    try:
        stat = path.stat()
    except (OSError, ValueError):  # the reader raises the error
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
