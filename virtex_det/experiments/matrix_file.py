"""Reading of a matrix from YAML; mistakes are short errors before anything runs."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
_KEYS = (
    *("title", "output", "protocols", "starts", "fractions", "seeds"),
    *("baseline", "pairs", "options"),
)
_PROTOCOL_KEYS = ("config", "fractions")
_START_KEYS = ("pretrain", "seed", "options")


def read_matrix(path: str | Path) -> Matrix:
    """Read a matrix file of the user or of the package.

    Its relative paths start at the working folder.

    Raises:
        UserError: the file is missing or invalid.
    """
    path = find_config(path, "matrix")
    try:
        return _matrix(read_yaml(path))
    except (UserError, KeyError, TypeError, ValueError) as error:
        reason = error if isinstance(error, UserError) else f"{type(error).__name__} {error}"
        raise UserError(f"{path} is not a matrix: {reason}\n{_FORM}") from error


def _matrix(content: Any) -> Matrix:
    _check_keys(content, _KEYS)
    protocols, some_fractions, starts = {}, {}, {}
    for name, what in _mapping(content["protocols"], "protocols").items():
        name = _text(name, "a name under protocols")
        if isinstance(what, dict):
            _check_keys(what, _PROTOCOL_KEYS)
            if "fractions" in what:
                some_fractions[name] = tuple(map(_fraction, _list(what, "fractions")))
            what = what["config"]
        protocols[name] = Path(_text(what, f"the config of the protocol {name}"))
    for name, what in _mapping(content["starts"], "starts").items():
        starts[_text(name, "a name under starts")] = _start(name, what)
    baseline = content.get("baseline")
    return Matrix(
        title=_text(content["title"], "title"),
        output=Path(_text(content["output"], "output")),
        protocols=protocols,
        starts=starts,
        fractions=tuple(map(_fraction, _list(content, "fractions"))),
        seeds=tuple(map(_seed, _list(content, "seeds"))),
        baseline="" if baseline is None else _text(baseline, "baseline"),
        options=_options(content, "options"),
        pairs=tuple(map(_pair, _list(content, "pairs"))) if content.get("pairs") else (),
        some_fractions=some_fractions,
    )


def _pair(value: Any) -> tuple[str, str]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"a pair must be of the form [NAME, NAME], not {value!r:.80}")
    ours, theirs = (_text(name, "a name under pairs") for name in value)
    return ours, theirs


def _start(name: str, what: Any) -> str | Pretraining:
    if isinstance(what, str):
        return what
    where = f"the start {name}"
    _check_keys(_mapping(what, where), _START_KEYS)
    return Pretraining(
        Path(_text(what["pretrain"], f"pretrain of {where}")),
        None if what.get("seed") is None else _seed(what["seed"]),
        _options(what, f"options of {where}"),
    )


def _text(value: Any, what: str) -> str:
    if value in (None, ""):
        raise ValueError(f"{what} is empty")
    if not isinstance(value, str):
        raise ValueError(f"{what} is {value!r}, but must be text; write other values in quotes")
    return value


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is {value!r:.80}, but must have lines of NAME: VALUE")
    return value


def _options(content: dict[str, Any], what: str) -> dict[str, Any]:
    options = content.get("options")
    return {} if options is None else dict(_mapping(options, what))


def _list(content: Mapping[str, Any], key: str) -> list[Any]:
    if not isinstance(content[key], list):
        raise ValueError(f"{key} is {content[key]!r:.80}, but must be a list")
    return content[key]


def _fraction(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"a fraction must be a number such as 0.01, not {value!r:.80}")
    return float(value)


def _seed(value: Any) -> int:
    if type(value) is not int or value < 0:  # Detectron2 reads a negative one as none
        raise ValueError(f"a seed must be a whole number from 0 on, not {value!r:.80}")
    if value >= 2**32:  # NumPy's limit
        raise ValueError(f"a seed must be below 2**32, not {value!r:.80}")
    return value


def _check_keys(content: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if not isinstance(content, Mapping):
        raise ValueError(f"found {content!r:.80}, expected keys and values")
    if unknown := [str(key) for key in content if key not in known]:
        nearest = difflib.get_close_matches(unknown[0], known, n=1) or known
        raise ValueError(f"there is no key {unknown[0]}; the nearest: {', '.join(nearest)}")
