"""Atomic writes, work in threads, and Markdown pages from templates."""

import gc
import hashlib
import os
import re
import secrets
import shutil
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from virtex_det.files import refuse_special_target
from virtex_det.signals import signals_held

Item = TypeVar("Item")
Result = TypeVar("Result")

# Temporary name of an unfinished file or folder: with the machine and the process that write it.
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-\w+\.part")


@contextmanager
def without_garbage_collection(*, long_lived: bool = False) -> Iterator[None]:
    """Switch garbage collection off, which would double the time to create millions of objects.

    Args:
        long_lived: move the new objects to the oldest generation, which is rarely searched. Else
            the first search after the block visits them all: 4 s for data of COCO's size.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if long_lived and not gc.get_freeze_count():  # 0 where nobody else keeps objects frozen
            gc.freeze()
            gc.unfreeze()
        if was_on:
            gc.enable()


def write_atomically(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` through a temporary file, so that no reader sees half a file.

    Lone surrogates, which a file cannot contain, are escaped. If several processes write the same
    file, the last one wins.
    """
    with replacing(Path(path)) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which replaces ``path`` if the block succeeds.

    It is deleted if the block fails, as are unfinished files of killed processes.

    Raises:
        UserError: ``path`` is a folder, a pipe or a device such as /dev/stdout.
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
            error.filename = str(path)  # an error of a full disk does not name the file
        raise


def unfinished_name(path: Path) -> Path:
    """Return a temporary name beside ``path``, unique to this process."""
    own = f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".{path.name[:150]}.{own}.part")


def folder_name(dataset: str) -> str:
    """Return the name of a data set as that of a folder; the name of a data set may be a path."""
    return re.sub(r"[^\w.-]+", "_", dataset)


def sweep(folder: Path, name: str = "") -> None:
    """Delete unfinished files in a folder whose processes on this machine have ended.

    Args:
        folder: folder to clean, without its subfolders.
        name: final name of the file or folder; "" for all.
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
    """Call a function for each item in threads; return the results in the order of the items.

    A signal or an error ends the work after the running calls.

    Args:
        function: called for each item; it should mostly wait for the disk.
        items: arguments of the function.
        threads: number of threads; None for ThreadPoolExecutor's default.
        on_done: called after each item, e.g. to update a progress bar.
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


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int
) -> Iterator[tuple[Item, Result]]:
    """Yield each item with a function's result, in their order, while threads work ahead.

    The items are taken in this thread. A signal or an error ends the work after the running calls.

    Args:
        function: called for each item, in a thread.
        items: arguments of the function.
        threads: number of threads.
        ahead: the most items that are taken before the first of them is yielded.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[Item, Future[Result]]] = deque()

        def first() -> tuple[Item, Result]:
            item, future = waiting.popleft()
            with signals_held() as stop_if_asked:
                while wait([future], timeout=0.5).not_done:
                    stop_if_asked()
            return item, future.result()

        try:
            for item in items:
                with signals_held():
                    waiting.append((item, pool.submit(function, item)))
                if len(waiting) >= ahead:
                    yield first()
            while waiting:
                yield first()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def fill_template(template: Path, **values: Any) -> str:
    """Render a Jinja template to Markdown; a missing value is an error."""
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
