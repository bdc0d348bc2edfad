"""Installing: setup.py, tools/install_detectron2.py and make setup, all without a network."""

import ast
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest
import setuptools  # noqa: F401  makes distutils importable on Python 3.12

import virtex_det

ROOT = Path(__file__).resolve().parents[1]
INSTALLED_BY_THE_TOOL = {"detectron2", "lvis"}


@pytest.fixture
def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_detectron2", ROOT / "tools" / "install_detectron2.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- setup.py


def test_the_version_is_read_with_neither_torch_nor_detectron2():
    blocked = "import runpy, sys; sys.modules.update(torch=None, detectron2=None, virtex_det=None); "
    command = blocked + "sys.argv = ['setup.py', '--version']; runpy.run_path('setup.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split()[-1:] == [virtex_det.__version__], done.stderr


def imported_modules(*folders: str) -> set[str]:
    """Return the top-level names of all modules that the Python files of some folders import, lazily or not."""
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
    extras = [part for name, parts in setup.extras_require.items() if name != "dev" for part in parts]
    requirements = setup.install_requires + extras
    declared = {re.match(r"[\w-]+", requirement).group().lower() for requirement in requirements}
    third_party = imported_modules("virtex_det", "tools") - set(sys.stdlib_module_names) - INSTALLED_BY_THE_TOOL
    distributions = packages_distributions()
    undeclared = {
        name
        for name in third_party - {"virtex_det"}
        if not declared & {distribution.lower() for distribution in distributions.get(name, [name])}
    }
    assert not undeclared


# --- tools/install_detectron2.py


@pytest.fixture
def toy_wheel(tmp_path, monkeypatch) -> str:
    """Put a wheel made like sal-detectron2's where pip looks, and nothing else; return its sha256."""
    path = tmp_path / "wheels" / "toy_dist-1.0-cp310-none-any.whl"
    path.parent.mkdir()
    record = "toy_dist-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy/__init__.py", "VALUE = 1\n")
        archive.writestr("tools/__init__.py", "")
        archive.writestr(f"{record}/METADATA", "Metadata-Version: 2.1\nName: toy-dist\nVersion: 1.0\n")
        archive.writestr(f"{record}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: cp310-none-any\n")
        archive.writestr(f"{record}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def site_packages(tmp_path) -> Path:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    return folder


def test_a_wheel_for_another_python_is_installed_without_its_tools_package(installer, toy_wheel, site_packages):
    installer.install(installer.Wheel("toy", "toy-dist", "1.0", toy_wheel), site_packages)
    assert {path.name for path in site_packages.iterdir()} == {"toy", "toy_dist-1.0.dist-info"}
    assert (site_packages / "toy" / "__init__.py").read_text() == "VALUE = 1\n"


def test_a_wheel_of_another_sha256_is_refused_and_leaves_nothing(installer, toy_wheel, site_packages):
    wrong = toy_wheel[::-1]
    with pytest.raises(installer.InstallError, match="DO NOT MATCH THE HASHES"):
        installer.install(installer.Wheel("toy", "toy-dist", "1.0", wrong), site_packages)
    assert not list(site_packages.iterdir())


def test_a_wheel_that_cannot_be_had_is_a_one_line_error(installer, toy_wheel, site_packages):
    with pytest.raises(installer.InstallError) as error:
        installer.install(installer.Wheel("toy", "toy-dist", "2.0", toy_wheel), site_packages)
    assert "toy-dist==2.0" in str(error.value) and "\n" not in str(error.value)


def test_what_an_interrupted_install_left_is_replaced(installer, toy_wheel, site_packages):
    (site_packages / "toy_dist-1.0.dist-info").mkdir()
    (site_packages / "toy_dist-1.0.dist-info" / "half").touch()
    installer.install(installer.Wheel("toy", "toy-dist", "1.0", toy_wheel), site_packages)
    assert not (site_packages / "toy_dist-1.0.dist-info" / "half").exists()


def run_installer(python_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(python_path), "PIP_NO_INDEX": "1"}
    command = [sys.executable, str(ROOT / "tools" / "install_detectron2.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def write_module(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(text)


def test_a_detectron2_that_imports_is_kept(tmp_path):
    for name in INSTALLED_BY_THE_TOOL:
        write_module(tmp_path, name, "")
    done = run_installer(tmp_path)
    assert done.returncode == 0
    assert "detectron2: already here, kept" in done.stdout


def test_help_installs_nothing(tmp_path):
    write_module(tmp_path, "lvis", "raise SystemExit('was imported')")
    done = run_installer(tmp_path, "--help")
    assert done.returncode == 0 and "sal-detectron2" in done.stdout
    assert run_installer(tmp_path, "--nothing").returncode == 2


def test_a_detectron2_that_does_not_import_is_left_alone_and_named(tmp_path):
    write_module(tmp_path, "lvis", "")
    write_module(tmp_path, "detectron2", "raise ImportError('its _C was built for another torch')")
    done = run_installer(tmp_path)
    assert done.returncode == 1
    assert "its _C was built for another torch" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


# --- make setup

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not on this machine")


@pytest.fixture
def fake_venv(tmp_path) -> Path:
    """An environment whose Python writes down its arguments, and fails where they contain $FAIL_ON."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    log = tmp_path / "log"
    python.write_text(f'#!/bin/sh\necho "$@" >> {log}\ncase "$*" in *"${{FAIL_ON:-no such}}"*) exit 1;; esac\n')
    python.chmod(0o755)
    return tmp_path


def make_setup(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    settings_of_an_outer_make = ("MAKE", "MFLAGS", "PYTHON", "TORCH")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(settings_of_an_outer_make)}
    command = ["make", "setup", f"VENV={folder / 'venv'}"]
    return subprocess.run(command, cwd=ROOT, env=clean | environment, capture_output=True, text=True)


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
def test_a_torch_that_imports_is_kept(fake_venv):
    make_setup(fake_venv)
    assert "torch==" not in (fake_venv / "log").read_text()


@needs_make
def test_the_environment_says_which_torch(fake_venv):
    make_setup(fake_venv, FAIL_ON="import torch", TORCH_VERSION="2.9.1", TORCHVISION_VERSION="0.24.1")
    assert "torch==2.9.1 torchvision==0.24.1" in (fake_venv / "log").read_text()


@needs_make
def test_a_python_that_is_too_new_is_named_and_leaves_nothing(tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("make", "cat", "cksum", "cut"):
        (programs / name).symlink_to(shutil.which(name))
    (programs / "python3").write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.14.0 || exit 1\n')
    (programs / "python3").chmod(0o755)
    done = make_setup(tmp_path, PATH=str(programs))
    assert done.returncode != 0
    assert "needs Python 3.10, 3.11 or 3.12, and python3 is Python 3.14.0" in done.stderr
    assert not (tmp_path / "venv").exists()
