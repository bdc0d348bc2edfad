"""The catalogue of published weights: catalog.yaml, one record per file, with checked fields.

``VIRTEX_DET_CATALOG`` names files of the same form, or folders of them, that add records.
"""

import dataclasses
import difflib
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from virtex_det.config.files import packaged_config
from virtex_det.errors import UserError
from virtex_det.yaml_files import YamlFile, read_yaml_file

CATALOG = Path(__file__).with_name("catalog.yaml")
VARIABLE = "VIRTEX_DET_CATALOG"


@dataclasses.dataclass(frozen=True)
class Record:
    """One weights file that others published.

    Attributes:
        name: the part of ``virtex://NAME`` after the slashes.
        family: the heading in lists and tables.
        format: the file's family in ``virtex_det.checkpoint.formats``.
        architecture: a short name of the network; ``network`` has its config keys.
        pretraining: task and data.
        paper: the source of the method.
        config: a config to start from, below ``configs/``; in a catalogue of the user also a file,
            by its path from the catalogue.
        pretraining_config: the config of the pretraining model that the file fills whole; empty if
            only the backbone can be used.
        urls: direct addresses of the file, tried in this order; empty if it must be downloaded by
            hand.
        licence: as the source states it.
        page: a web page with the file.
        size: in bytes.
        sha256: in hexadecimal; the first eight or more digits if the source states only those.
        aliases: other names, for example the paths of VirTex's configs.
        network: config keys in which the network and its pixels differ from those of an RGB R-50.
        numbers: published results, source -> metric -> value in percent.
        note: a remark.
        tested: whether the addresses were tried, and the file was loaded, with this package.
    """

    name: str
    family: str
    format: str
    architecture: str
    pretraining: str
    paper: str
    config: str
    urls: list[str]
    licence: str | None
    page: str
    pretraining_config: str = ""
    size: int | None = None
    sha256: str | None = None
    aliases: list[str] = dataclasses.field(default_factory=list)
    network: dict[str, Any] = dataclasses.field(default_factory=dict)
    numbers: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    note: str = ""
    tested: bool = False

    @property
    def file_name(self) -> str:
        """The file's name in the cache and on a mirror."""
        path = PurePosixPath(urlsplit(self.urls[0]).path if self.urls else "")
        suffix = path.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,12}", path.suffix) else ".pth"
        if not is_address(self.name):
            return self.name + suffix
        # Many addresses have the same end, and an address may be too long for a file name.
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", path.stem or "weights")[:60]
        return f"{stem}-{hashlib.sha256(self.name.encode()).hexdigest()[:12]}{suffix}"


def catalog() -> tuple[Record, ...]:
    """Return all records: those of the package, then those of ``VIRTEX_DET_CATALOG``.

    Raises:
        UserError: a file of the variable is missing or invalid, or hides a name of another file.
    """
    return _joined(tuple((path, path.stat().st_mtime_ns) for path in _own_catalogs()))


@cache
def _joined(own: tuple[tuple[Path, int], ...]) -> tuple[Record, ...]:
    """Return the records of the package and of the user's files, given with their time of change.

    Raises:
        UserError: a file is invalid, or hides a name of another.
    """
    records: list[Record] = []
    owners: dict[str, Path] = {}
    for file in (CATALOG, *(path for path, _ in own)):
        of_file = read_catalog(file)
        for record in of_file:
            for name in _names(record):
                if name in owners:
                    raise UserError(
                        f"{file}: the record {record.name} would hide the name {name} of "
                        f"{owners[name]}.\nGive it another name or alias."
                    )
        owners |= {name: file for record in of_file for name in _names(record)}
        records += of_file
    return tuple(records)


def _own_catalogs() -> list[Path]:
    """Return the files that ``VIRTEX_DET_CATALOG`` names, those of a folder in alphabetical order.

    Raises:
        UserError: one is missing, or a folder has no YAML file.
    """
    found: dict[Path, None] = {}
    for name in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        path = Path(os.path.expanduser(name))  # noqa: PTH111  (Path's raises for ~nobody)
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.glob("[!.]*") if file.suffix in (".yaml", ".yml"))
        if not files or not all(file.is_file() for file in files):
            what = "is a folder without YAML files" if not files else "does not exist"
            raise UserError(
                f"{VARIABLE} names {name:.200}, which {what}.\nSet it to catalogue files, or "
                f"folders of them, with {os.pathsep} between them."
            )
        found |= dict.fromkeys(file.resolve() for file in files)
    return list(found)


def _names(record: Record) -> tuple[str, ...]:
    return (record.name, *record.aliases)


def list_models(filter: str = "") -> list[str]:
    """Return the names of the records whose texts contain ``filter``.

    The texts are name, aliases, family, format, architecture and pretraining.
    """

    def searched(record: Record) -> str:
        texts = (
            record.name,
            *record.aliases,
            record.family,
            record.format,
            record.architecture,
            record.pretraining,
        )
        return "\n".join(texts).lower()

    return [record.name for record in catalog() if filter.lower() in searched(record)]


def find(name: str) -> Record:
    """Return the record of a name or alias; ``.yaml`` after it is ignored.

    Raises:
        UserError: the catalogue does not have the name; the message suggests the nearest.
    """
    by_name = {known: record for record in catalog() for known in _names(record)}
    record = by_name.get(name.removesuffix(".yaml"))
    if record is None:
        nearest = difflib.get_close_matches(name[:200], by_name, n=5, cutoff=0.4)
        raise UserError(
            f"The model zoo has no weights {name[:200]!r}. "
            + (f"Nearest names: {', '.join(nearest)}. " if nearest else "")
            + "All names: python tools/model_zoo.py list"
        )
    return record


def is_address(source: str) -> bool:
    """Return whether a text is an http address."""
    return source.lower().startswith(("http://", "https://"))


def record_of(url: str) -> Record:
    """Return a record for an address that is not in the catalogue; the address is its name.

    Raises:
        UserError: it is not a valid http address.
    """
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host or not is_address(url) or not url.isprintable() or " " in url:
        raise UserError(f"{url!r} is not the address of a file; expected https://HOST/PATH.")
    unknown: dict[str, Any] = dict.fromkeys(
        ("family", "format", "architecture", "pretraining", "paper", "config"), ""
    )
    return Record(name=url, urls=[url], licence=None, page=url, **unknown)


def read_catalog(path: Path) -> tuple[Record, ...]:
    """Return the records of a catalogue file.

    Raises:
        UserError: names the line, the invalid record and its field.
    """
    try:
        file = read_yaml_file(path)
    except UserError as error:
        raise UserError(f"The catalogue {error}") from error
    entries = file.content.get("weights") if isinstance(file.content, Mapping) else None
    if not isinstance(entries, list):
        raise UserError(
            f"The catalogue {path} has no list of records under the key weights.\n"
            f"If it is something else, such as a config, move it into a subfolder: each YAML file "
            f"right in a folder of {VARIABLE} is read as a catalogue."
        )
    records = tuple(_record(entry, file, index) for index, entry in enumerate(entries))
    _check_names(records, file)
    return records


def _record(entry: Any, file: YamlFile, index: int) -> Record:
    def where(field: str = "") -> str:
        name = f" ({entry.get('name', 'without a name')})" if isinstance(entry, Mapping) else ""
        said = f", field {field}" if field else ""
        return f"{file.at('weights', index, field)}, record {index + 1}{name}{said}"

    if not isinstance(entry, Mapping):
        raise UserError(f"{where()}: expected fields and values, found {entry!r}.")
    if unknown := sorted(set(map(str, entry)) - set(_FIELDS)):
        nearest = difflib.get_close_matches(unknown[0], _FIELDS, n=1) or sorted(_FIELDS)
        raise UserError(f"{where(unknown[0])}: unknown field. Did you mean {' or '.join(nearest)}?")
    for field, (fits, expected) in _FIELDS.items():
        if field not in entry:
            if field in _REQUIRED:
                raise UserError(f"{where(field)}: missing; expected {expected}.")
        elif not fits(entry[field]):
            raise UserError(f"{where(field)}: expected {expected}, found {entry[field]!r}.")
    return Record(**{**entry, **_own_configs(entry, file.path, where)})


def _own_configs(
    entry: Mapping[str, Any], catalog: Path, where: Callable[[str], str]
) -> dict[str, str]:
    """Return the configs of a record that are files beside its catalogue, by their whole paths.

    Raises:
        UserError: a config is neither there nor in the package.
    """
    found = {}
    for field in ("config", "pretraining_config"):
        beside = catalog.parent / (name := entry.get(field, ""))
        if not name or packaged_config(name).is_file():
            continue
        if not beside.is_file():
            raise UserError(
                f"{where(field)}: the package has no config {name}, and there is no file {beside}."
            )
        found[field] = str(beside.absolute())
    return found


def _check_names(records: tuple[Record, ...], file: YamlFile) -> None:
    seen: set[str] = set()
    for index, record in enumerate(records):
        for field, names in (("name", [record.name]), ("aliases", record.aliases)):
            for name in names:
                if name in seen:
                    raise UserError(
                        f"{file.at('weights', index, field)}, record {index + 1} ({record.name}), "
                        f"field {field}: an earlier record has the name {name}, too. Change one of "
                        "them."
                    )
                seen.add(name)


def _matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _or_null(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _mapping_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, dict) and all(isinstance(key, str) and fits(value[key]) for key in value)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_text = _matches(r"\S(.*\S)?")
_url = _matches(r"https?://\S+")
_config_key = _matches(r"[A-Z0-9_]+(\.[A-Z0-9_]+)+")
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (
        _matches(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}"),
        "letters, digits and . _ + -, not beginning with .",
    ),
    "family": (_text, "text"),
    "format": (_matches(r"\w+"), "the name of a weights family"),
    "architecture": (_text, "text"),
    "pretraining": (_text, "text"),
    "paper": (_text, "text"),
    "config": (_matches(r"[\w./-]+\.yaml"), "the path of a config below configs/"),
    "pretraining_config": (_matches(r"[\w./-]+\.yaml"), "the path of a config below configs/"),
    "urls": (_list_of(_url), "a list of http addresses"),
    "licence": (_or_null(_text), "text or null"),
    "page": (_url, "an http address"),
    "size": (_or_null(lambda value: type(value) is int and value > 0), "a number of bytes or null"),
    "sha256": (
        _or_null(_matches(r"[0-9a-f]{8,64}")),
        "8 to 64 hexadecimal digits in quotes, or null",
    ),
    "aliases": (_list_of(_text), "a list of names"),
    "network": (
        lambda value: isinstance(value, dict) and all(map(_config_key, value)),
        "config keys with their values",
    ),
    "numbers": (_mapping_of(_mapping_of(_is_number)), "source: {metric: number}"),
    "note": (lambda value: isinstance(value, str), "text"),
    "tested": (lambda value: isinstance(value, bool), "true or false"),
}
_REQUIRED = {
    field.name
    for field in dataclasses.fields(Record)
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
}
