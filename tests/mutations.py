"""Small, systematic damage to valid input: every place of a document with every kind of damage."""

import copy
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from virtex_det.errors import UserError

# Replacements of any value. Replacements of the same type would be valid and are left out.
VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "word": "x",
    "empty": "",
    "digits": "1",
    "padded": " 1",
    "full-width": "１",
    "underscored": "1_0",
    "half-a-character": "\ud800",
    "zero": 0,
    "fraction": 0.5,
    "negative": -7,
    "huge": 10**30,
    "nan": float("nan"),
    "infinity": float("inf"),
    "list": [],
    "nested": [[[1]]],
    "mapping": {"x": 1},
}
# Invalid even for a value of the same type.
NEVER = {"nan", "infinity", "huge", "half-a-character"}
LONGEST_MESSAGE = 40  # lines: one screen

Place = tuple[str | int, ...]


def mutations(document: Any, *, places_of_list: int = 1) -> Iterator[tuple[str, Any]]:
    """Yield names and copies of a document, each with one value removed, repeated or replaced.

    Args:
        document: mappings, lists and plain values.
        places_of_list: number of entries of each list to damage.
    """
    for place, value in _places(document, places_of_list):
        name = ".".join(map(str, place))
        if place:
            yield f"{name}-removed", _changed(document, place, remove=True)
        if isinstance(value, list) and value:
            yield f"{name}-repeated", _changed(document, place, [*value, copy.deepcopy(value[0])])
        for kind, wrong in VALUES.items():
            if type(wrong) is not type(value) or kind in NEVER:
                yield f"{name}-{kind}", _changed(document, place, wrong)


def damaged_bytes(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of a text file that is cut, encoded otherwise, or another file."""
    yield "empty", b""
    yield "cut-in-half", content[: len(content) // 2]
    yield "cut-at-the-end", content.rstrip()[:-1]
    yield "utf-16", content.decode().encode("utf-16")
    yield "not-utf-8", b"\xff\xfe\x00" + content
    yield "zeros", b"\0" * len(content)
    yield "nested-lists", b"[" * 100_000 + b"]" * 100_000
    yield "nested-mappings", b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    yield "html", b"<!DOCTYPE html><html><body>Not found</body></html>"
    for kind in ("null", "true", "word", "fraction", "nan", "list", "mapping"):
        yield kind, json.dumps(VALUES[kind]).encode()


def judge(
    read: Callable[[], Any],
    expected: Any,
    *,
    names: tuple[str, ...],
    said: Callable[[], bool] = lambda: False,
) -> str:
    """Check that damaged input is refused on one screen or read like the undamaged input.

    Args:
        read: the reader, whose result is compared.
        expected: its result for the undamaged input.
        names: an error must name one of these, such as the file.
        said: whether a warning reported skipped parts; then the rest may be read.

    Returns:
        "refused" or "accepted".
    """
    with time_limit(20):
        try:
            found = read()
        except UserError as error:
            message = str(error)
            assert len(message.splitlines()) <= LONGEST_MESSAGE, (
                f"more than one screen:\n{message[:3000]}"
            )
            assert any(name in message for name in names), (
                f"{names} is not named:\n{message[:1000]}"
            )
            return "refused"
    assert found == expected or said(), "accepted without a warning, but read as something else"
    return "accepted"


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise an error after this much processor time, or after waiting 20 times as long."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"still at work after {seconds} seconds")

    before = {sent: signal.signal(sent, give_up) for sent in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(20 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for sent, handler in before.items():
            signal.signal(sent, handler)


def _places(document: Any, places_of_list: int, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    yield place, document
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _places(value, places_of_list, (*place, key))
    elif isinstance(document, list):
        for position, value in enumerate(document[:places_of_list]):
            yield from _places(value, places_of_list, (*place, position))


def _changed(document: Any, place: Place, value: Any = None, *, remove: bool = False) -> Any:
    if not place:
        return value
    changed = copy.deepcopy(document)
    parent = changed
    for step in place[:-1]:
        parent = parent[step]
    if remove:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    return changed
