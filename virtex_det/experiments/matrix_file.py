"""Reading of a matrix from YAML; mistakes are short errors before anything runs."""

import dataclasses
import difflib
from pathlib import Path
from typing import Any

import msgspec

from virtex_det.config.files import find_config
from virtex_det.errors import UserError
from virtex_det.experiments.matrix import Matrix, Pretraining
from virtex_det.yaml_files import read_yaml

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
options: {KEY: VALUE}   # of all runs but pretraining"""


@dataclasses.dataclass
class _Protocol:
    config: str
    fractions: tuple[float, ...] | None = None


def read_matrix(path: str | Path) -> Matrix:
    """Read a matrix file of the user or of the package.

    Its relative paths start at the working folder.

    Raises:
        UserError: the file is missing or invalid.
    """
    path = find_config(path, "matrix")
    try:
        return _matrix(read_yaml(path))
    except (UserError, msgspec.ValidationError) as error:
        raise UserError(f"{path} is not a matrix: {error}\n{_FORM}") from error


def _matrix(content: Any) -> Matrix:
    fields = _fields(content, Matrix)
    some_fractions = fields["some_fractions"] = {}
    for name, what in _entries(fields, "protocols"):
        if isinstance(what, dict):
            protocol = msgspec.convert(_fields(what, _Protocol), _Protocol)
            fields["protocols"][name] = protocol.config
            if protocol.fractions is not None:
                some_fractions[name] = protocol.fractions
    for name, what in _entries(fields, "starts"):
        if not isinstance(what, str):
            fields["starts"][name] = _fields(what, Pretraining)
    return msgspec.convert(fields, Matrix, dec_hook=_as_path)


def _fields(content: Any, kind: type) -> dict[str, Any]:
    """Return the entries of a YAML mapping that are not empty; refuse those that are no field."""
    if not isinstance(content, dict):
        raise UserError(f"found {content!r:.80}, expected keys and values")
    known = [field.name for field in dataclasses.fields(kind) if field.name != "some_fractions"]
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
