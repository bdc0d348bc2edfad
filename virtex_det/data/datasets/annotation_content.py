"""Parses an annotation file once where several steps need what it says, one after the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from virtex_det.text_files import read_json

_State = tuple[int, ...]
# By path, what was parsed within ``parsing_once``; None outside, where nothing is kept.
_parsed: dict[Path, tuple[_State, Any]] | None = None


@contextmanager
def parsing_once() -> Iterator[None]:
    """Within the block each file is parsed once, as long as it does not change; all is forgotten at the end."""
    global _parsed
    before, _parsed = _parsed, {} if _parsed is None else _parsed
    try:
        yield
    finally:
        _parsed = before


def read_annotations(path: str | Path, expected: str) -> Any:
    """Return the content of a JSON file, which the caller leaves as it is: others may get the same objects.

    Args:
        path: of the file.
        expected: what should be there, for the message.

    Raises:
        UserError: as ``read_json``.
    """
    path = Path(path)
    state = None if _parsed is None else _state(path)
    if _parsed is None or state is None:
        return read_json(path, expected)
    if path not in _parsed or _parsed[path][0] != state:
        _parsed[path] = state, read_json(path, expected)
    return _parsed[path][1]


def _state(path: Path) -> _State | None:
    try:
        stat = path.stat()
    except (OSError, ValueError):  # what is wrong with it, the reader says
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
