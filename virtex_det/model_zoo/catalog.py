"""The catalogue of published weights: catalog.yaml, one record per file, with checked fields."""

import dataclasses
import difflib
import hashlib
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from virtex_det.errors import UserError
from virtex_det.yaml_files import read_yaml

CATALOG = Path(__file__).with_name("catalog.yaml")


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
        config: a config to start from, below ``configs/``.
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
    """Return all records of the package."""
    return read_catalog(CATALOG)


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
    by_name = {known: record for record in catalog() for known in (record.name, *record.aliases)}
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


@cache
def read_catalog(path: Path) -> tuple[Record, ...]:
    """Return the records of a catalogue file.

    Raises:
        UserError: names the invalid record and field.
    """
    try:
        content = read_yaml(path)
    except UserError as error:
        raise UserError(f"The catalogue {error}") from error
    entries = content.get("weights") if isinstance(content, Mapping) else None
    if not isinstance(entries, list):
        raise UserError(f"The catalogue {path} has no list of records under the key weights.")
    records = tuple(
        _record(entry, f"{path}, record {index}") for index, entry in enumerate(entries, start=1)
    )
    _check_names(records, path)
    return records


def _record(entry: Any, where: str) -> Record:
    if not isinstance(entry, Mapping):
        raise UserError(f"{where}: expected fields and values, found {entry!r}.")
    where = f"{where} ({entry.get('name', 'without a name')})"
    if unknown := sorted(set(map(str, entry)) - set(_FIELDS)):
        nearest = difflib.get_close_matches(unknown[0], _FIELDS, n=1) or sorted(_FIELDS)
        raise UserError(
            f"{where}, field {unknown[0]}: unknown field. Did you mean {' or '.join(nearest)}?"
        )
    for field, (fits, expected) in _FIELDS.items():
        if field not in entry:
            if field in _REQUIRED:
                raise UserError(f"{where}, field {field}: missing; expected {expected}.")
        elif not fits(entry[field]):
            raise UserError(f"{where}, field {field}: expected {expected}, found {entry[field]!r}.")
    return Record(**entry)


def _check_names(records: tuple[Record, ...], path: Path) -> None:
    seen: set[str] = set()
    for index, record in enumerate(records, start=1):
        for field, names in (("name", [record.name]), ("aliases", record.aliases)):
            for name in names:
                if name in seen:
                    raise UserError(
                        f"{path}, record {index} ({record.name}), field {field}: an earlier record "
                        f"has the name {name}, too. Change one of them."
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
