"""Installing Detectron2, without a network."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from virtex_det.cli import install_detectron2 as installer

ROOT = Path(__file__).resolve().parents[2]
INSTALLED_BY_THE_TOOL = {"detectron2", "lvis"}


@pytest.fixture
def toy_wheel(tmp_path, monkeypatch) -> str:
    """Let pip find a wheel like sal-detectron2's, and nothing else; return the wheel's sha256."""
    path = tmp_path / "wheels" / "toy_dist-1.0-cp310-none-any.whl"
    path.parent.mkdir()
    record = "toy_dist-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy/__init__.py", "VALUE = 1\n")
        archive.writestr("tools/__init__.py", "")
        archive.writestr(
            f"{record}/METADATA", "Metadata-Version: 2.1\nName: toy-dist\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{record}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: cp310-none-any\n"
        )
        archive.writestr(f"{record}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def site_packages(tmp_path) -> Path:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    return folder


def test_a_wheel_for_another_python_is_installed_without_its_tools_package(
    toy_wheel, site_packages
):
    installer.install(installer.Wheel("toy", "toy-dist", "1.0", toy_wheel), site_packages)
    assert {path.name for path in site_packages.iterdir()} == {"toy", "toy_dist-1.0.dist-info"}
    assert (site_packages / "toy" / "__init__.py").read_text() == "VALUE = 1\n"


def test_a_wheel_of_another_sha256_is_refused_and_leaves_nothing(toy_wheel, site_packages):
    wrong = toy_wheel[::-1]
    with pytest.raises(installer.InstallError, match="DO NOT MATCH THE HASHES"):
        installer.install(installer.Wheel("toy", "toy-dist", "1.0", wrong), site_packages)
    assert not list(site_packages.iterdir())


def test_a_wheel_that_cannot_be_had_is_a_one_line_error(toy_wheel, site_packages):
    with pytest.raises(installer.InstallError) as error:
        installer.install(installer.Wheel("toy", "toy-dist", "2.0", toy_wheel), site_packages)
    assert "toy-dist==2.0" in str(error.value) and "\n" not in str(error.value)


def test_what_an_interrupted_install_left_is_replaced(toy_wheel, site_packages):
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
