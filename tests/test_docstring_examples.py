"""The examples in docstrings run and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import virtex_det.checkpoint
import virtex_det.config
import virtex_det.data
import virtex_det.model_zoo
import virtex_det.modeling

PACKAGES = (
    virtex_det.checkpoint,
    virtex_det.config,
    virtex_det.data,
    virtex_det.model_zoo,
    virtex_det.modeling,
)


def modules_with_examples() -> list[str]:
    found = []
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            tests = doctest.DocTestFinder().find(importlib.import_module(module.name))
            if any(test.examples for test in tests):
                found.append(module.name)
    return found


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_a_module_print_what_they_say(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert not results.failed
