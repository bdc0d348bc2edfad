"""Reading a matrix from YAML: every mistake is one screen that says what was meant, before anything runs."""

import difflib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

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
    try:
        content = yaml.load(Path(path).read_text(), _UniqueKeys)
        _check_keys(content, _KEYS)
        return Matrix(
            title=str(content["title"]),
            output=Path(content["output"]),
            protocols={str(name): Path(config) for name, config in content["protocols"].items()},
            starts={str(name): _start(what) for name, what in content["starts"].items()},
            fractions=tuple(map(float, content["fractions"])),
            seeds=tuple(map(int, content["seeds"])),
            baseline=str(content.get("baseline", "")),
            options=dict(content.get("options", {})),
        )
    except OSError as error:
        raise UserError(f"There is no matrix {path}. Those that come with virtex_det: configs/benchmarks/") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is no matrix: {type(error).__name__} {error}\n{_FORM}") from error


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is an error; plain YAML keeps the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise ValueError(f"{twice} stands twice")
        return super().construct_mapping(node, deep)


def _start(what: Any) -> str | Pretraining:
    if isinstance(what, str):
        return what
    _check_keys(what, _START_KEYS)
    return Pretraining(Path(what["pretrain"]), what.get("seed"), dict(what.get("options", {})))


def _check_keys(content: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := [str(key) for key in content if key not in known]:
        nearest = difflib.get_close_matches(unknown[0], known, n=1) or known
        raise ValueError(f"there is no key {unknown[0]}; the nearest: {', '.join(nearest)}")
