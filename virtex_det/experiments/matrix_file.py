"""Reading of a matrix from YAML; mistakes are short errors before anything runs."""

import copy
import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from virtex_det.benchmark.published import PublishedResult, published_results
from virtex_det.config.files import find_config, import_named, is_of_others
from virtex_det.errors import UserError
from virtex_det.experiments.configs import config_of
from virtex_det.experiments.matrix import Matrix, Pretraining
from virtex_det.protocols.catalog import PROTOCOLS, Protocol, protocol_from, protocols
from virtex_det.protocols.matching import nearest_protocol, settings_digits
from virtex_det.yaml_files import YamlFile, read_yaml_file

_FORM = """Expected:
title: TEXT
output: FOLDER
protocols:
  NAME: CONFIG
  NAME: {config: CONFIG, fractions: [1.0]}  # some of the fractions below
starts:
  NAME: WEIGHTS         # "" for random init
  NAME: {pretrain: CONFIG}
fractions: [0.1, 1.0]
seeds: [0, 1, 2]
baseline: NAME          # of a start; optional, as are the next two
pairs: [[NAME, NAME]]   # starts to compare with each other
options: {KEY: VALUE}   # of all runs but pretraining
imports: FILE.py        # optional: plugins, or a list of them
published: FILE         # optional: results of others, or a list of them here"""
# What makes an entry of protocols a protocol of the user.
_DEFINES = [
    field.name for field in dataclasses.fields(Protocol) if field.name not in ("id", "config")
]
# Fields of a matrix that are not keys of its file.
_MADE = ("some_fractions", "own_protocols")


@dataclasses.dataclass
class _Protocol:
    config: str
    fractions: tuple[float, ...] | None = None


def read_matrix(path: str | Path) -> Matrix:
    """Read a matrix file of the user or of the package.

    Its relative paths start at the working folder; those under ``imports``, at the file.

    Raises:
        UserError: the file, or that of its published results, is missing or invalid.
    """
    path = find_config(path, "matrix")
    with _showing_form(path):
        file = read_yaml_file(path)
    content = file.content
    if isinstance(content, dict):
        import_named(content.get("imports"), path, is_users=not is_of_others(path))
        content = {key: value for key, value in content.items() if key != "imports"}
    with _showing_form(path):
        matrix = _matrix(content)
    own = _own_protocols(file, matrix)
    return dataclasses.replace(matrix, own_protocols=own, published=_published(file, own))


@contextmanager
def _showing_form(path: Path) -> Iterator[None]:
    try:
        yield
    except (UserError, msgspec.ValidationError) as error:
        raise UserError(f"{path} is not a matrix: {error}\n{_FORM}") from error


def _matrix(content: Any) -> Matrix:
    fields = _fields(copy.deepcopy(content), Matrix)  # to keep the file's content as it is
    fields.pop("published", None)
    some_fractions = fields["some_fractions"] = {}
    for name, what in _entries(fields, "protocols"):
        if isinstance(what, dict):
            protocol = msgspec.convert(_fields(what, _Protocol, _DEFINES), _Protocol)
            fields["protocols"][name] = protocol.config
            if protocol.fractions is not None:
                some_fractions[name] = protocol.fractions
    for name, what in _entries(fields, "starts"):
        if not isinstance(what, str):
            fields["starts"][name] = _fields(what, Pretraining)
    return msgspec.convert(fields, Matrix, dec_hook=_as_path)


def _own_protocols(file: YamlFile, matrix: Matrix) -> dict[str, Protocol]:
    """Return the protocols that a matrix defines; refuse names and settings of ours."""
    found = {}
    for name, what in _entries(file.content, "protocols"):
        if not isinstance(what, dict) or not what.keys() & set(_DEFINES):
            continue
        place = ("protocols", name)
        if name in protocols():
            raise UserError(
                f"{file.at(*place)}: {name} is a protocol of virtex_det already ({PROTOCOLS}), "
                "which this one would hide.\nGive yours another name, or leave out all but config "
                "and fractions."
            )
        path = find_config(matrix.protocols[name])
        cfg = config_of(path, ())
        digits = settings_digits(cfg)
        fields = {key: value for key, value in what.items() if key in _DEFINES}
        if fields.get("settings", "") != digits:
            said = f"are {fields['settings']!r:.80}" if "settings" in fields else "are missing"
            raise UserError(
                f"{file.at(*place, 'settings')}: the settings of {name} {said}, but those of "
                f'{path} are "{digits}".\nThey show that the config of a protocol was not edited '
                f'since. If it is as it should be, write settings: "{digits}".'
            )
        fields["config"] = str(path.absolute())
        protocol = found[name] = protocol_from(file, fields, *place)
        nearest = nearest_protocol(cfg, (protocol,))
        if nearest.protocol != protocol:
            raise UserError(
                f"{file.at(*place)}: {path} has the settings of {nearest.id}, so {name} cannot be "
                "another protocol.\nLeave out all but config and fractions."
            )
    return found


def _published(file: YamlFile, own: dict[str, Protocol]) -> tuple[PublishedResult, ...]:
    """Return the published results that a matrix has, or the file that it names."""
    groups = file.content.get("published")
    if groups is None:
        return ()
    place: tuple[str, ...] = ("published",)
    if isinstance(groups, str):
        file, place = read_yaml_file(Path(groups)), ()
        groups = file.content
    results = published_results(file, groups, *place)
    known = [*protocols(), *own]
    for index, group in enumerate(groups):
        if group["protocol"] not in known:
            nearest = difflib.get_close_matches(group["protocol"], known, n=3, cutoff=0)
            raise UserError(
                f"{file.at(*place, index, 'protocol')}: there is no protocol "
                f"{group['protocol']:.80}; the nearest: {', '.join(nearest)}."
            )
    return results


def _fields(content: Any, kind: type, more: Sequence[str] = ()) -> dict[str, Any]:
    """Return the entries of a YAML mapping that are not empty; refuse those that are no field.

    Fields of the names ``more`` are left out.
    """
    if not isinstance(content, dict):
        raise UserError(f"found {content!r:.80}, expected keys and values")
    known = [field.name for field in dataclasses.fields(kind) if field.name not in _MADE]
    content = {key: value for key, value in content.items() if key not in more}
    if unknown := [str(key) for key in content if key not in known]:
        nearest = difflib.get_close_matches(unknown[0], known, n=1) or known
        raise UserError(f"there is no key {unknown[0]}; the nearest: {', '.join(nearest)}")
    return {key: value for key, value in content.items() if value is not None}


def _entries(fields: dict[str, Any], key: str) -> list[tuple[Any, Any]]:
    """Return the entries of a field; none if it is missing or not a mapping, which is refused."""
    entries = fields.get(key)
    return list(entries.items()) if isinstance(entries, dict) else []


def _as_path(kind: type, value: Any) -> Path:
    """Convert the name of a file or folder, the one type that msgspec does not know."""
    if not value or not isinstance(value, str):
        raise ValueError(f"Expected the name of a file or folder, got {value!r:.80}")
    return Path(value)
