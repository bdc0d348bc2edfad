"""Writing a file whole or not at all, and Markdown pages from templates."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomically(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` through a temporary neighbour, so that a reader never meets half a file.

    Half a surrogate, which no file can hold, is written as its escape.
    Processes may write the same file at the same time: the last one stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a neighbour to write to; it takes the place of ``path`` when the block ends well, else it goes.

    The neighbour has one name, so that a process killed while it wrote a large file leaves one behind and no more; of
    several processes only one may write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.unlink(missing_ok=True)  # a link there would be written through
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def render_markdown(template: Path, **values: Any) -> str:
    """Return the page that a Jinja template makes of values; a value that it asks for and does not get is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from virtex_det.escaping import in_markdown

    environment = Environment(
        loader=FileSystemLoader(template.parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,
    )
    environment.filters["inert"] = in_markdown
    return environment.get_template(template.name).render(**values)
