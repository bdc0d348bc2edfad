"""Finding and reading config files with their ``_BASE_``; they are local and hold plain values."""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from virtex_det.config.nodes import leaves
from virtex_det.config.renames import forget, superseded, without_effect
from virtex_det.errors import UserError
from virtex_det.plugins import MANIFEST, check_imported, import_plugin, imported
from virtex_det.yaml_files import read_yaml, shortened

CONFIGS = Path(__file__).parents[1].joinpath("configs").resolve()  # of the package
MAX_BASES = 100  # files that a config consists of
RUN_CONFIG = "config.yaml"  # that a run writes
RUN_MARKERS = ("last_checkpoint", "model_*.pth", "metrics.json")  # patterns of files of a run
_DIRECTIVES = ("_BASE_", "IMPORTS")
# Variables that name the folders of downloaded files.
_CACHES = ("VIRTEX_DET_CACHE", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "FVCORE_CACHE")


def find_config(name: str | Path, what: str = "config file") -> Path:
    """Return the file of this name, or the config of virtex_det with this name if there is no file.

    Args:
        name: a path; or the name of a config of virtex_det, with or without ``configs/``, such as
            ``detectron2/coco_segm_default_init_2x.yaml``.
        what: kind of file, for the message.

    Raises:
        UserError: neither exists; the message names the nearest.
    """
    path = _find(os.path.expanduser(name), Path())  # noqa: PTH111  (Path's raises for ~nobody)
    if os.path.isfile(path):  # noqa: PTH113  (Path's raises for a name that is too long)
        return path
    if os.path.exists(path):  # noqa: PTH110
        inside = path / "config.yaml"
        advice = f" Its config is {inside}." if inside.is_file() else ""
        raise UserError(f"{name!s:.300} is a folder or a device, not a {what}.{advice}")
    raise UserError(f"There is no {what} {name!s:.300}.{_nearest_to(name)}")


def packaged_config(name: str | Path) -> Path:
    """Return the path of a config of the package; its name may begin with ``configs/``."""
    return CONFIGS / str(name).removeprefix("configs/")


def _find(name: str | Path, folder: Path) -> Path:
    """Return the path of a name in a folder, or in the package if the folder does not have it."""
    path, packaged = folder / name, packaged_config(name)
    may_be_packaged = not Path(name).is_absolute() and ".." not in Path(name).parts
    is_local = os.path.exists(path)  # noqa: PTH110
    if may_be_packaged and not is_local and os.path.isfile(packaged):  # noqa: PTH113
        return packaged
    return path


def _nearest_to(name: str | Path) -> str:
    beside = [str(path) for path in Path(name).parent.glob("*.yaml")]
    packaged = [
        str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml") if path.name[0] != "_"
    ]
    nearest = difflib.get_close_matches(str(name)[:1000], [*beside, *packaged], n=3, cutoff=0.5)
    return (
        f" The nearest: {', '.join(nearest)}"
        if nearest
        else f" The configs of virtex_det are in {CONFIGS}."
    )


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Return a config file's keys merged over those of its ``_BASE_``, as Detectron2 does.

    ``_BASE_`` is a file name or a list of them: a path relative to the file that names it, or a
    config of the package. ``~`` is the home directory. The plugins under ``IMPORTS`` are imported
    (see ``import_named``).

    Raises:
        UserError: ``read_yaml`` refuses a file, or it is not a mapping; bases form a circle, are
            more than MAX_BASES, or are addresses; or as ``import_named``, or the file is that of a
            run whose plugins are not imported.
    """
    return _read_config(Path(path), (), iter(range(MAX_BASES)))


def _read_config(
    path: Path, above: tuple[str, ...], left: Iterator[int], is_users: bool = True
) -> dict[str, Any]:
    real = os.path.realpath(path)
    if real in above:
        circle = " -> ".join([*above[above.index(real) :], real])
        raise UserError(f"_BASE_ leads in a circle: {circle}\nTake _BASE_ out of one of them.")
    if next(left, None) is None:
        raise UserError(
            f"{(*above, real)[0]} consists of more than {MAX_BASES} _BASE_ files.\n"
            f"At most {MAX_BASES} are read: merge some of them."
        )
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(
            f"{path} is not a config: expected lines of KEY: VALUE, found {shortened(content)}."
        )
    _check_keys(content, path)
    is_users = is_users and not is_of_others(path)
    if path.name == RUN_CONFIG:
        check_imported(path.parent)
    import_named(content.get("IMPORTS"), path, is_users=is_users)
    merged: dict[str, Any] = {}
    for base in _bases(content, path):
        _merge_over(merged, _read_config(base, (*above, real), left, is_users), base)
    own = {key: value for key, value in content.items() if key not in _DIRECTIVES}
    forget(own, without_effect(dict(leaves(own)), str(path)))
    _merge_over(merged, own, path)
    return merged


def import_named(named: Any, path: Path, *, is_users: bool = True) -> None:
    """Import the plugins that a file names: paths relative to it, or modules.

    Args:
        named: one name or a list of them; None for none.
        path: the file.
        is_users: the user wrote the file. Of another file's plugins each must have been imported.

    Raises:
        UserError: a name is none, a plugin cannot be imported, or must be asked for.
    """
    names = [] if named is None else named if isinstance(named, list) else [named]
    for name in names:
        if not isinstance(name, str) or not name or name[0] in "(['\"" or "\0" in name:
            raise UserError(
                f"{path} imports {shortened(named)}; expected the name of a Python file or of a "
                "module, or a list of them: [my_task.py]."
            )
        is_file = name.endswith(".py") or os.sep in name
        place = os.path.join(path.parent, os.path.expanduser(name)) if is_file else name  # noqa: PTH111, PTH118
        if is_users:
            import_plugin(place)
        elif Path(name).name not in {plugin.name for plugin in imported()}:
            raise UserError(
                f"{path} asks to import {name}, but it is a file of a run or was downloaded, and "
                "nothing is imported because of such a file.\n"
                f"Read the code; if you want it to run, add to the command: --import {place}"
            )


def is_of_others(path: Path) -> bool:
    """Return whether a file may come from elsewhere: of a run folder, or in a cache of downloads.

    A run writes ``config.yaml``, and people share it with its weights.
    """
    variables = [os.environ.get(name, "") for name in _CACHES]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    caches = [os.path.realpath(folder) for folder in (cache, *variables) if folder]
    for place in (path.absolute(), Path(os.path.realpath(path))):
        is_cached = any(place.is_relative_to(folder) for folder in caches)
        if path.name == RUN_CONFIG or is_cached or any(map(_is_run, place.parents)):
            return True
    return False


def _is_run(folder: Path) -> bool:
    """Return whether a folder has a config beside weights, logs or plugins, as a run's has."""
    patterns = (*RUN_MARKERS, MANIFEST, "*.safetensors")
    return (folder / RUN_CONFIG).is_file() and any(any(folder.glob(one)) for one in patterns)


def _merge_over(lower: dict[str, Any], upper: dict[str, Any], path: Path) -> None:
    """Merge upper keys into lower ones; a new name also replaces the lower one's old name."""
    forget(lower, superseded(dict(leaves(upper))))
    _merge(upper, lower, path)


def _check_keys(content: dict[Any, Any], path: Path) -> None:
    for key, value in content.items():
        if not isinstance(key, str):
            raise UserError(
                f"{path}: the key {shortened(key)} is not text. "
                "Config keys are names such as MODEL."
            )
        if isinstance(value, dict):
            _check_keys(value, path)


def _bases(content: dict[str, Any], path: Path) -> list[Path]:
    named = content.get("_BASE_", [])
    names = named if isinstance(named, list) else [named]
    for name in names:
        if not isinstance(name, str) or not name or "\0" in name:
            raise UserError(
                f"{path}: _BASE_ is {shortened(named)}; expected the name of a config file, "
                "or a list of them."
            )
        if "://" in name:
            raise UserError(
                f"{path}: _BASE_ is the address {shortened(name)}, but configs are read from local "
                "files only. Download the file, read it, and name it here."
            )
    # Path.expanduser raises for ~nobody.
    return [_find(os.path.expanduser(name), path.parent) for name in names]  # noqa: PTH111


def _merge(upper: dict[str, Any], lower: dict[str, Any], path: Path) -> None:
    for key, value in upper.items():
        if isinstance(value, dict) and key in lower:
            if not isinstance(lower[key], dict):
                found = shortened(lower[key])
                raise UserError(
                    f"{path}: {key} is a section of keys, but the _BASE_ sets it to {found}. "
                    "Change one of the two."
                )
            _merge(value, lower[key], path)
        else:
            lower[key] = value
