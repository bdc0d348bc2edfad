"""Writing a file whole or not at all, work shared out among threads, and Markdown pages from templates."""

import gc
import hashlib
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from virtex_det.files import refuse_special_target
from virtex_det.signals import signals_held

Item = TypeVar("Item")
Result = TypeVar("Result")

# Of a neighbour in which a file or folder grows: of the machine and process that write it, and one of its own.
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-\w+\.part")


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Keep Python from looking for garbage, which costs as much as the rest where millions of objects are made."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def write_atomically(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` through a temporary neighbour, so that a reader never meets half a file.

    Half a surrogate, which no file can hold, is written as its escape.
    Processes may write the same file at the same time: the last one stays.
    """
    with replacing(Path(path)) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a neighbour to write to; it takes the place of ``path`` when the block ends well, else it goes.

    What a killed process has left of the same file goes as well.

    Raises:
        UserError: ``path`` is a folder, a pipe or a device such as /dev/stdout, which a file must not replace.
    """
    refuse_special_target(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, path.name)
    unfinished = unfinished_name(path)
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a write says that the disk is full, but not of which file
        raise


def unfinished_name(path: Path) -> Path:
    """Return a name beside ``path``, of this process alone, under which it can grow until it is whole."""
    own = f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".{path.name[:150]}.{own}.part")


def sweep(folder: Path, name: str = "") -> None:
    """Delete what processes of this machine that are gone have left unfinished in a folder.

    Args:
        folder: in which, not below which.
        name: of the file or folder that was to be; "" for all.
    """
    for path in folder.glob(".*.part"):
        match = _UNFINISHED.fullmatch(path.name)
        if (
            match
            and name[:150] in ("", match["name"])
            and match["machine"] == _machine()
            and _is_gone(match["process"])
        ):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@cache
def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_gone(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def map_in_threads(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int | None = None,
    on_done: Callable[[], object] = lambda: None,
) -> list[Result]:
    """Call a function for each item in several threads; return the results in the order of the items.

    A signal or an error ends the work after the calls that have begun.

    Args:
        function: mostly waits for the disk.
        items: its arguments.
        threads: how many; None for as many as ThreadPoolExecutor takes.
        on_done: called after each item, as the update of a progress bar.
    """
    results = []
    with signals_held() as stop_if_asked, ThreadPoolExecutor(threads) as pool:
        try:
            futures = []
            for item in items:
                futures.append(pool.submit(function, item))
                stop_if_asked()
            for future in futures:
                while wait([future], timeout=0.5).not_done:
                    stop_if_asked()
                results.append(future.result())
                stop_if_asked()
                on_done()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def fill_template(template: Path, **values: Any) -> str:
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
