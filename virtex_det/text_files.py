"""Readers of users' text and JSON: regular files in UTF-8, with or without a byte order mark."""

import codecs
import json
import logging
import os
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from virtex_det.errors import UserError
from virtex_det.files import open_regular
from virtex_det.utils import without_garbage_collection

logger = logging.getLogger(__name__)

_LARGE = 50 * 10**6  # bytes, read in about a second
_BLOCK = 2**20  # bytes, which fit a processor's cache
_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
_CONVERT = "Convert the file, e.g. with iconv -t UTF-8, or make it again."


def read_bytes(path: str | Path, expected: str = "a file") -> bytes:
    """Return a file's content.

    Args:
        path: a file; pipes and devices are refused, because reading may never end.
        expected: kind of file, for the error message.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    with _opened(path, expected) as file:
        try:
            if (size := os.fstat(file.fileno()).st_size) > _LARGE:
                logger.info("Reading %s (%d MB)", path, size // 10**6)
            return file.read()
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}); expected {expected}."
            ) from error


def _opened(path: str | Path, expected: str) -> BinaryIO:
    try:
        return open_regular(path)
    except UserError as error:
        raise UserError(f"{error} Expected {expected}.") from error


def starts_with_mark(path: str | Path) -> bool:
    """Return whether a file begins with UTF-8's byte order mark, which some readers refuse."""
    with open_regular(path) as file:
        return file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


def decode_text(content: bytes, place: str) -> str:
    """Return UTF-8 text without its byte order mark.

    Args:
        content: encoded text.
        place: its name in messages, such as a file or a line of it.

    Raises:
        UserError: the text has another encoding, or NUL characters.
    """
    for magic, program in _COMPRESSED.items():
        if content.startswith(magic):
            raise UserError(f"{place} is compressed by {program}, not text. Decompress it.")
    for mark, encoding in _OTHER_ENCODINGS.items():
        if content.startswith(mark):
            raise UserError(f"{place} is {encoding}, not UTF-8 text.\n{_CONVERT}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{place} is not UTF-8 text: {error.reason} at byte {error.start}.\n{_CONVERT}"
        ) from error
    if "\0" in text:
        raise UserError(
            f"{place} is not UTF-8 text: it has NUL characters (UTF-16, or binary?).\n{_CONVERT}"
        )
    return text


def split_lines(text: str) -> list[str]:
    r"""Return the lines of a text, which end with \n or \r\n, or all with \r; U+2028 is text.

    Example:
        >>> split_lines("a\u2028b\r\nc\n")
        ['a\u2028b', 'c']
    """
    lines = [line.removesuffix("\r") for line in text.split("\n" if "\n" in text else "\r")]
    return lines[:-1] if lines[-1] == "" else lines


def read_text(path: str | Path, expected: str = "a text file") -> str:
    """Return the text of a file.

    Raises:
        UserError: as ``read_bytes`` and ``decode_text``.
    """
    return decode_text(read_bytes(path, expected), str(path))


def read_lines(path: str | Path, expected: str = "a text file") -> Iterator[tuple[str, str]]:
    """Yield each line that is not blank with its place, "FILE, line N", one by one.

    Raises:
        UserError: as ``read_bytes`` and ``decode_text``.
    """
    with _opened(path, expected) as lines:
        for number, line in enumerate(lines, start=1):
            text = decode_text(line, f"{path}, line {number}") if line.strip() else ""
            if text.strip():
                yield f"{path}, line {number}", text.removesuffix("\n").removesuffix("\r")


def read_json(path: str | Path, expected: str = "a JSON file") -> Any:
    """Return the content of a JSON file.

    Raises:
        UserError: as ``read_bytes`` and ``parse_json``.
    """
    return parse_json(read_bytes(path, expected), str(path))


def parse_json(content: bytes | str, place: str) -> Any:
    """Return the content of JSON.

    NaN, infinity and lone surrogates, which JSON does not allow, are read, so that later checks can
    name the entry.

    Args:
        content: the JSON.
        place: its name in messages.

    Raises:
        UserError: it is not JSON, is nested too deep, or an object has two entries of one name.
    """
    encoded = (
        content if isinstance(content, bytes) else content.encode(errors="surrogatepass")
    ).removeprefix(codecs.BOM_UTF8)
    try:
        with without_garbage_collection():
            found = orjson.loads(encoded)
            # A colon follows every name: with as many colons as names, no name occurs twice.
            is_unique = count_names(found) == count_colons(encoded)
    except orjson.JSONDecodeError:
        return _parse_slowly(encoded, place)
    return found if is_unique else _parse_slowly(encoded, place)


def count_colons(encoded: bytes) -> int:
    """Return how many colons follow a quotation mark; too many if a text has such a pair."""
    found, values = 0, np.frombuffer(encoded, np.uint8)
    for start in range(0, len(values), _BLOCK):
        places = np.flatnonzero(values[start : start + _BLOCK] == ord(":")) + start
        before = values[places - 1]
        if (before <= ord(" ")).any():
            return encoded.count(b'":') + len(re.findall(rb'"\s+:', encoded))
        found += int(np.count_nonzero(before == ord('"')))
    return found


def _parse_slowly(encoded: bytes, place: str) -> Any:
    """Parse with Python's parser, which allows more than orjson, and check each name."""
    try:
        return json.loads(decode_text(encoded, "it"), object_pairs_hook=_unique_names)
    except RecursionError as error:
        raise UserError(f"{place} is not JSON: its lists are nested too deeply.") from error
    except (UserError, ValueError) as error:
        raise UserError(
            f"{place} is not JSON: {error}\nMake the file again, or correct that place."
        ) from error


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(
                f"an object has {name!r} twice, {str(found[name])[:80]!r} and {str(value)[:80]!r}"
            )
        found[name] = value
    return found


def count_names(content: Any) -> int:
    """Return how many names all objects have; too few for lists that begin with a number."""
    count, level = 0, [content]
    while level:
        objects = [value for value in level if type(value) is dict]
        lists = [
            value
            for value in level
            if type(value) is list and value and type(value[0]) in (dict, list)
        ]
        count += sum(map(len, objects))
        inner = chain(chain.from_iterable(map(dict.values, objects)), chain.from_iterable(lists))
        level = [value for value in inner if type(value) is dict or type(value) is list]
    return count
