"""Installing: setup.py and make setup, all without a network."""

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import setuptools  # noqa: F401  makes distutils importable on Python 3.12

import virtex_det

ROOT = Path(__file__).resolve().parents[1]
INSTALLED_BY_THE_TOOL = {"detectron2", "lvis"}


# --- setup.py


def test_the_version_is_read_with_neither_torch_nor_detectron2():
    blocked = (
        "import runpy, sys; sys.modules.update(torch=None, detectron2=None, virtex_det=None); "
    )
    command = (
        blocked
        + "sys.argv = ['setup.py', '--version']; runpy.run_path('setup.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split()[-1:] == [virtex_det.__version__], done.stderr


def imported_modules(*folders: str) -> set[str]:
    """Return the top-level names of all modules that the Python files of folders import."""
    names = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.split(".")[0])
    return names


def test_every_package_that_virtex_det_imports_is_declared():
    from distutils.core import run_setup

    setup = run_setup(str(ROOT / "setup.py"), stop_after="init")
    extras = [
        part for name, parts in setup.extras_require.items() if name != "dev" for part in parts
    ]
    requirements = setup.install_requires + extras
    declared = {re.match(r"[\w-]+", requirement).group().lower() for requirement in requirements}
    third_party = (
        imported_modules("virtex_det", "tools")
        - set(sys.stdlib_module_names)
        - INSTALLED_BY_THE_TOOL
    )
    distributions = packages_distributions()
    undeclared = {
        name
        for name in third_party - {"virtex_det", "virtex_det_commands"}
        if not declared & {distribution.lower() for distribution in distributions.get(name, [name])}
    }
    assert not undeclared


# --- make setup

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not on this machine")


@pytest.fixture
def fake_venv(tmp_path) -> Path:
    """An environment whose Python logs its arguments, and fails if they contain $FAIL_ON."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    log = tmp_path / "log"
    python.write_text(
        f'#!/bin/sh\necho "$@" >> {log}\ncase "$*" in *"${{FAIL_ON:-no such}}"*) exit 1;; esac\n'
    )
    python.chmod(0o755)
    return tmp_path


def make_setup(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    settings_of_an_outer_make = ("MAKE", "MFLAGS", "PYTHON", "TORCH")
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(settings_of_an_outer_make)
    }
    command = ["make", "setup", f"VENV={folder / 'venv'}"]
    return subprocess.run(
        command, cwd=ROOT, env=clean | environment, capture_output=True, text=True
    )


@needs_make
def test_a_finished_setup_is_not_repeated(fake_venv):
    assert make_setup(fake_venv).returncode == 0
    calls = (fake_venv / "log").read_text()
    assert make_setup(fake_venv).returncode == 0
    assert (fake_venv / "log").read_text() == calls


@needs_make
def test_an_interrupted_setup_is_done_again(fake_venv):
    assert make_setup(fake_venv, FAIL_ON="--editable").returncode != 0
    assert "install_detectron2" not in (fake_venv / "log").read_text()
    assert make_setup(fake_venv).returncode == 0
    assert "install_detectron2" in (fake_venv / "log").read_text()


@needs_make
def test_an_installed_torch_is_kept(fake_venv):
    make_setup(fake_venv)
    assert "torch==" not in (fake_venv / "log").read_text()


@needs_make
def test_the_environment_says_which_torch(fake_venv):
    make_setup(
        fake_venv, FAIL_ON="import torch", TORCH_VERSION="2.9.1", TORCHVISION_VERSION="0.24.1"
    )
    assert "torch==2.9.1 torchvision==0.24.1" in (fake_venv / "log").read_text()


@needs_make
def test_a_python_that_is_too_new_is_named_and_leaves_nothing(tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("make", "cat", "cksum", "cut"):
        (programs / name).symlink_to(shutil.which(name))
    (programs / "python3").write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.14.0 || exit 1\n'
    )
    (programs / "python3").chmod(0o755)
    done = make_setup(tmp_path, PATH=str(programs))
    assert done.returncode != 0
    assert "needs Python 3.10 to 3.13, and python3 is Python 3.14.0" in done.stderr
    assert not (tmp_path / "venv").exists()
