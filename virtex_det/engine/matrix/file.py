"""Reading a matrix from YAML: every mistake is one screen that says what was meant, before anything runs."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from virtex_det.config import read_yaml
from virtex_det.engine.matrix.matrix import Matrix, Pretraining
from virtex_det.errors import UserError

_FORM = """Expected:
title: TEXT
output: FOLDER
protocols:
  NAME: CONFIG
starts:
  NAME: WEIGHTS         # "" for random
  NAME: {pretrain: CONFIG}
fractions: [0.1, 1.0]
seeds: [0, 1, 2]
baseline: NAME          # of a start; optional, as is options: {KEY: VALUE}"""
_KEYS = ("title", "output", "protocols", "starts", "fractions", "seeds", "baseline", "options")
_START_KEYS = ("pretrain", "seed", "options")


def read_matrix(path: str | Path) -> Matrix:
    """Read a matrix; its paths are relative to where the command is started.

    Raises:
        UserError: there is no such file, or it is not of the form.
    """
    if not Path(path).exists():
        raise UserError(f"There is no matrix {path}. Those that come with virtex_det: configs/benchmarks/")
    try:
        content = read_yaml(path)
        _check_keys(content, _KEYS)
        return Matrix(
            title=_text(content, "title"),
            output=Path(_text(content, "output")),
            protocols={str(name): Path(config) for name, config in content["protocols"].items()},
            starts={str(name): _start(what) for name, what in content["starts"].items()},
            fractions=tuple(map(float, _list(content, "fractions"))),
            seeds=tuple(map(_seed, _list(content, "seeds"))),
            baseline=str(content.get("baseline") or ""),
            options=dict(content.get("options") or {}),
        )
    except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = error if isinstance(error, UserError) else f"{type(error).__name__} {error}"
        raise UserError(f"{path} is no matrix: {reason}\n{_FORM}") from error


def _start(what: Any) -> str | Pretraining:
    if isinstance(what, str):
        return what
    _check_keys(what, _START_KEYS)
    seed = what.get("seed")
    return Pretraining(Path(what["pretrain"]), None if seed is None else _seed(seed), dict(what.get("options") or {}))


def _text(content: Mapping[str, Any], key: str) -> str:
    if content[key] in (None, ""):
        raise ValueError(f"{key} is empty")
    return str(content[key])


def _list(content: Mapping[str, Any], key: str) -> list[Any]:
    if not isinstance(content[key], list):
        raise ValueError(f"{key} is {content[key]!r}, and has to be a list")
    return content[key]


def _seed(value: Any) -> int:
    if type(value) is not int or value < 0:  # Detectron2 takes a negative one for none
        raise ValueError(f"a seed is a whole number from 0 on, and not {value!r}")
    return value


def _check_keys(content: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := [str(key) for key in content if key not in known]:
        nearest = difflib.get_close_matches(unknown[0], known, n=1) or known
        raise ValueError(f"there is no key {unknown[0]}; the nearest: {', '.join(nearest)}")
