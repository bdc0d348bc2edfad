"""Plugins: Python that a user asks for, imported once in each process and kept with each run.

A plugin is a file, such as ``my_task.py``, or a module by its name. It is imported because of
``--import``, of IMPORTS in a config file of the user, of ``imports`` in a matrix, or because an
installed package has it under the entry point group ``virtex_det.plugins``. Nothing is imported
because of a run folder or of a downloaded file.
"""

import argparse
import difflib
import hashlib
import importlib
import json
import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any, NamedTuple

from virtex_det.errors import UserError
from virtex_det.files import as_name, read_regular
from virtex_det.text_files import read_json
from virtex_det.utils import replacing, write_atomically

logger = logging.getLogger(__name__)

GROUP = "virtex_det.plugins"  # of entry points
MANIFEST = "plugins.json"  # in a run folder: what the run was made with
COPIES = "plugins"  # the folder beside it with copies
_MAX_BYTES = 10 << 20  # of a file
_LINES, _COLUMNS = 4, 300  # shown of an error that is not ours


@dataclass(frozen=True)
class Plugin:
    """A plugin that this process has imported.

    Attributes:
        name: of the file, such as "my_task.py", or of the module.
        asked: its absolute path or its name as a module; "" for an entry point, which each process
            imports by itself.
        sha256: of the file's bytes; of a package, of the hashes of all its Python files.
        files: their bytes, by path.
    """

    name: str
    asked: str
    sha256: str
    files: Mapping[str, bytes] = field(repr=False)


_imported: dict[str, Plugin] = {}  # by name
_done: set[str] = set()  # modules of entry points


def imported() -> tuple[Plugin, ...]:
    """Return the plugins of this process, in the order of their import."""
    return tuple(_imported.values())


def import_plugin(name: str | os.PathLike[str]) -> Plugin:
    """Import a plugin, unless this process has imported the same.

    Args:
        name: path of a Python file, or name of a module that Python finds.

    Raises:
        UserError: it does not exist or raises, with its own line; or this process has imported
            another plugin of that name.

    Example:
        >>> import_plugin("my_task.py").sha256  # doctest: +SKIP
        '5f0c...'
    """
    text = as_name(name, "The plugin")
    if text.endswith(".py") or os.sep in text:
        return _import_file(Path(os.path.abspath(os.path.expanduser(text))))  # noqa: PTH100, PTH111
    return _import_module(text, asked=text)


def import_as(plugins: Sequence[Plugin]) -> None:
    """Import the plugins of the process that started this one.

    Raises:
        UserError: as ``import_plugin``, or a plugin has changed since then.
    """
    for plugin in plugins:
        found = import_plugin(plugin.asked or plugin.name)
        if found.sha256 != plugin.sha256:
            raise UserError(
                f"The plugin {plugin.asked} was changed while its run started: its sha256 was "
                f"{plugin.sha256}, now it is {found.sha256}. Start the run again."
            )


def import_entry_points() -> None:
    """Import the plugins of installed packages, once in a process.

    Raises:
        UserError: one raises; the message names its package.
    """
    for entry in _entry_points():
        if entry.module in _done:
            continue
        _done.add(entry.module)
        try:
            _import_module(entry.module, asked="")
        except UserError as error:
            _done.discard(entry.module)
            raise UserError(f"{error}\n{_origin(entry)} Mend or uninstall that package.") from error


@cache
def _entry_points() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


def _origin(entry: EntryPoint) -> str:
    package = entry.dist.name if entry.dist else "an installed package"
    return f"It is the entry point {entry.name} in the group {GROUP} of {package}."


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--import PLUGIN`` to a command; plugins are imported while its words are read.

    Raises:
        UserError: a plugin of an installed package raises.
    """
    import_entry_points()
    parser.add_argument(
        "--import",
        action=_Import,
        default=argparse.SUPPRESS,
        metavar="PLUGIN",
        help="Python file or module with your own tasks, backbones, data or config keys, imported "
        "first; may be given several times (docs/plugins.md)",
    )


class _Import(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        import_plugin(values)


def import_words() -> list[str]:
    """Return the words of a command line by which another process imports the same plugins."""
    return [word for plugin in imported() if plugin.asked for word in ("--import", plugin.asked)]


def plugin_hashes() -> dict[str, str]:
    """Return the hash of each plugin of this process by its name, for records."""
    return {plugin.name: plugin.sha256 for plugin in imported()}


def _import_file(path: Path) -> Plugin:
    if not path.is_file():
        beside = [str(other) for other in path.parent.glob("*.py")]
        nearest = difflib.get_close_matches(str(path), beside, n=1, cutoff=0.6)
        hint = f" The nearest: {nearest[0]}" if nearest else ""
        raise UserError(f"There is no plugin {path!s:.500}.{hint}")
    source = read_regular(path, _MAX_BYTES)
    plugin = Plugin(path.name, str(path), _sha256(source), {path.name: source})
    if earlier := _earlier(plugin):
        return earlier
    module = ModuleType(f"virtex_det_plugin_{path.stem}")
    module.__file__ = str(path)
    with _explained(str(path), [path]), _noted(plugin):
        sys.modules[module.__name__] = module  # dataclasses look for it there
        exec(compile(source, str(path), "exec"), vars(module))
    return plugin


def _earlier(plugin: Plugin) -> Plugin | None:
    """Return the plugin of the same content that was imported; refuse another of the same name."""
    for other in imported():
        if other.sha256 == plugin.sha256:
            return other
    named = _imported.get(plugin.name)
    if named is None:
        return None
    if named.asked == plugin.asked:
        raise UserError(
            f"The plugin {plugin.asked} was changed after this process imported it: its sha256 was "
            f"{named.sha256}, now it is {plugin.sha256}. Start Python again."
        )
    raise UserError(
        f"Two plugins are called {plugin.name}: {named.asked} (sha256 {named.sha256}) and "
        f"{plugin.asked} (sha256 {plugin.sha256}).\n"
        "Import one of them, or rename one: runs keep copies under that name."
    )


def _import_module(name: str, asked: str) -> Plugin:
    if name in _imported:
        return _imported[name]
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(
            f"The plugin {name!r:.200} is neither a Python file, such as my_task.py, nor the name "
            "of a module, such as my_package.tasks."
        )
    with _explained(name, []):
        paths = _paths_of(name)
    files = {short: read_regular(path, _MAX_BYTES) for short, path in paths.items()}
    hashes = {short: _sha256(content) for short, content in files.items()}
    lines = "".join(f"{short} {sha256}\n" for short, sha256 in hashes.items())
    sha256 = [*hashes.values()][0] if len(hashes) == 1 else _sha256(lines.encode())
    plugin = Plugin(name, asked, sha256, files)
    if earlier := _earlier(plugin):
        return earlier
    with _explained(name, [*paths.values()]), _noted(plugin):
        importlib.import_module(name)
    return plugin


def _paths_of(name: str) -> dict[str, Path]:
    """Return a module's file, or all Python files of a package, by path below their root."""
    found = find_spec(name)
    if found is None:
        hint = f" For the file write {name}.py." if Path(f"{name}.py").is_file() else ""
        raise UserError(
            f"There is no module {name}.{hint} Install its package, or set PYTHONPATH to the "
            "folder that it is in."
        )
    if not found.origin or not found.has_location:
        raise UserError("It is a module without a Python file. Name a module that has one.")
    file, parts = Path(found.origin), name.split(".")
    if found.submodule_search_locations is None:
        return {Path(*parts[:-1], file.name).as_posix(): file}
    paths = sorted(file.parent.rglob("*.py"))
    return {Path(*parts, path.relative_to(file.parent)).as_posix(): path for path in paths}


@contextmanager
def _noted(plugin: Plugin) -> Iterator[None]:
    """Note a plugin before it runs, since it may load a config that imports it; not if it fails."""
    _imported[plugin.name] = plugin
    try:
        yield
    except BaseException:
        del _imported[plugin.name]
        raise


@contextmanager
def _explained(name: str, files: Sequence[Path]) -> Iterator[None]:
    """Turn any error of a plugin into a message with its own line.

    Args:
        name: of the plugin.
        files: its own; the message shows the last line of them that was executed.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        shown = "\n".join([*_where(error, files), _reason(error)])
        raise UserError(f"The plugin {name} cannot be imported.\n{shown}") from error


def _where(error: BaseException, files: Sequence[Path]) -> list[str]:
    if isinstance(error, SyntaxError) and error.filename:
        line = (error.text or "").strip()
        return [f"{error.filename}, line {error.lineno}: {line:.{_COLUMNS}}"]
    own = {str(file) for file in files}
    frames = [frame for frame in extract_tb(error.__traceback__) if frame.filename in own]
    return [f"{frame.filename}, line {frame.lineno}: {frame.line}" for frame in frames[-1:]]


def _reason(error: BaseException) -> str:
    text = str(error.msg if isinstance(error, SyntaxError) else error)
    if isinstance(error, UserError):
        return text
    if match := re.search(r"named '(.+)' was already registered in '(.+)' registry", text):
        return (
            f"The name {match[1]} is taken in Detectron2's registry {match[2]}. Register yours "
            "under another name."
        )
    lines = f"{type(error).__name__}: {text}".splitlines()[:_LINES]
    return "\n".join(line[:_COLUMNS] for line in lines)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class KeptPlugin(NamedTuple):
    """A plugin in the folder of the run that was made with it.

    Attributes:
        name: as of ``Plugin``.
        sha256: likewise.
        asked: the run's copy, or the name of a package.
        folder: with the copies.
    """

    name: str
    sha256: str
    asked: str
    folder: Path

    def advice(self) -> str:
        """Return the option that imports it."""
        found = f"--import {shlex.quote(self.asked)}"
        return found if self.asked.endswith(".py") else f"{found}  (PYTHONPATH={self.folder})"


def keep_plugins(run_folder: str | Path) -> None:
    """Write the names and hashes of this process's plugins to a run folder, with copies."""
    folder = Path(run_folder)
    if not imported():
        (folder / MANIFEST).unlink(missing_ok=True)  # of a start that failed
        return
    for plugin in imported():
        for name, content in plugin.files.items():
            copy = folder / COPIES / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            with replacing(copy) as unfinished:
                unfinished.write_bytes(content)
    entries = [
        {"name": plugin.name, "sha256": plugin.sha256, "files": [*plugin.files]}
        for plugin in imported()
    ]
    write_atomically(folder / MANIFEST, json.dumps(entries, indent=1) + "\n")


def kept_plugins(run_folder: str | Path) -> list[KeptPlugin]:
    """Return the plugins that a run was made with.

    Raises:
        UserError: the file that names them is damaged.
    """
    folder = Path(run_folder)
    path = folder / MANIFEST
    if not path.is_file():
        return []
    try:
        return [
            KeptPlugin(entry["name"], entry["sha256"], _asked(folder, entry), folder / COPIES)
            for entry in read_json(path)
        ]
    except (UserError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}, which names the plugins of the run, is damaged: {error!s:.200}.\n"
            "Put it back from a copy of the folder."
        ) from error


def _asked(folder: Path, entry: Mapping[str, Any]) -> str:
    files: Sequence[str] = entry["files"]
    return str(folder / COPIES / files[0]) if len(files) == 1 else str(entry["name"])


def run_import_option(run_folder: str | Path) -> str:
    """Return the options that import the plugins of a run, each after a space; "" for none."""
    asked = [shlex.quote(plugin.asked) for plugin in kept_plugins(run_folder)]
    return "".join(f" --import {name}" for name in asked)


def check_imported(run_folder: str | Path) -> None:
    """Refuse to read a run without its plugins; warn of those that have changed since it began.

    Raises:
        UserError: one is not imported; the message names all such, and what to add.
    """
    warn_of_changed(run_folder)
    missing = [plugin for plugin in _others(run_folder) if plugin.name not in _imported]
    if missing:
        names = ", ".join(f"{plugin.name} (sha256 {plugin.sha256})" for plugin in missing)
        options = "\n".join(f"  {plugin.advice()}" for plugin in missing)
        raise UserError(
            f"The run in {run_folder} was made with a plugin that is not imported: {names}.\n"
            "Nothing is imported from a run folder unless you ask for it. Read the copy that the "
            f"run has kept; if you want it to run, add to the command:\n{options}\n"
            "In Python call virtex_det.import_plugin first."
        )


def warn_of_changed(run_folder: str | Path) -> None:
    """Warn of plugins that have changed since a run began."""
    for plugin in _others(run_folder):
        if plugin.name in _imported:
            _warn_once(_changed(plugin, run_folder))


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)  # a run's config is read several times


def refuse_changed(run_folder: str | Path) -> None:
    """Refuse to go on with a run whose plugins have changed, or are not imported.

    Raises:
        UserError: names the first with both hashes.
    """
    for plugin in _others(run_folder):
        if plugin.name in _imported:
            raise UserError(
                f"{_changed(plugin, run_folder)}.\nTo go on with the run, use "
                f"{plugin.advice()}; for the new one start a new run in another folder."
            )
    check_imported(run_folder)


def _others(run_folder: str | Path) -> list[KeptPlugin]:
    """Return the plugins of a run that this process has not imported as they were."""
    hashes = plugin_hashes().values()
    return [plugin for plugin in kept_plugins(run_folder) if plugin.sha256 not in hashes]


def _changed(plugin: KeptPlugin, run_folder: str | Path) -> str:
    now = _imported[plugin.name]
    return (
        f"The plugin {plugin.name} has changed since the run in {run_folder} began: its sha256 was "
        f"{plugin.sha256}, now {now.asked or 'the installed one'} has {now.sha256}"
    )
