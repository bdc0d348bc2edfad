"""Paths as a page shows them: enough to tell files apart, not where on a machine they lie."""

import os
import re
from pathlib import Path

_KEPT = 2  # last parts of a path that are shown
_PART = r"[^\s'\",;:()\[\]<>/]+"
# A path of two parts or more. Not within a word, a relative path or an address such as virtex://;
# and no identifier of Freebase such as /m/01g317, which is what Open Images calls a class.
_BEFORE = r"(?:(?<=file://)|(?<![\w.~})$/…-]))"
_ABSOLUTE = re.compile(rf"{_BEFORE}/(?!/|[mtg]/\w+(?![\w./])){_PART}(?:/{_PART})+/?")


def shown_path(path: str | os.PathLike[str]) -> str:
    """Return a path for a page: relative where it is below the working folder, else its end.

    Example:
        >>> shown_path("/home/someone/runs/captions/model_final.pth")
        '…/captions/model_final.pth'
    """
    path = Path(os.fsdecode(path))
    if not path.is_absolute():
        return str(path)
    if path.is_relative_to(Path.cwd()) and Path.cwd() != Path(Path.cwd().anchor):
        return str(path.relative_to(Path.cwd()))
    return "/".join(["…", *(path.parts[2:] or path.parts[1:])[-_KEPT:]])


def without_absolute_paths(text: str) -> str:
    """Return a text with every absolute path in it as ``shown_path`` shows it.

    A path with a space in it ends there for this function; hand it to ``shown_path`` by itself.

    Example:
        >>> without_absolute_paths("weights in /data/people/me/moco_v2.pth, read once")
        'weights in …/me/moco_v2.pth, read once'
    """
    return _ABSOLUTE.sub(lambda match: shown_path(match[0]), text)
