"""The wheel by itself: in an environment without the clone, and in an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "virtex_det_commands.py")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """The folder of programs of an environment with the installed wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    clone = folder / "clone"
    clone.mkdir()
    for name in SOURCES:
        shutil.copy(ROOT / name, clone)
    for name in ("virtex_det", "configs"):
        shutil.copytree(ROOT / name, clone / name, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        str(clone),
    ]
    subprocess.run([*pip, *build], check=True)
    shutil.rmtree(clone)
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    [wheel] = folder.glob("*.whl")
    python = str(environment / "bin" / "python")
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*pip, "--python", python, *install], check=True)
    # What else is needed comes from here. Python reads no .pth of that folder, so the clone stays
    # out.
    [site_packages] = environment.glob("lib/python*/site-packages")
    (site_packages / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin"


@pytest.fixture
def run(programs, tmp_path):
    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        kept = ("PYTHONPATH", "VIRTUAL_ENV", "DETECTRON2_DATASETS")
        clean = {name: value for name, value in os.environ.items() if name not in kept}
        command = [str(programs / program), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True)

    return run


def test_the_package_is_the_wheels(run, programs):
    done = run(
        "python",
        "-c",
        "import virtex_det, virtex_det_commands as c; print(virtex_det.__file__, c.__file__)",
    )
    assert done.returncode == 0, done.stderr
    assert all(path.startswith(str(programs.parent)) for path in done.stdout.split())


def test_the_commands_are_listed(run):
    done = run("virtex-det", "-h")
    assert done.returncode == 0 and "install-detectron2" in done.stdout, done.stderr


def test_a_packaged_config_is_found_by_its_name_and_the_message_names_what_is_installed(run):
    done = run("virtex-det", "train", "--config-file", "detectron2/scenes_segm.yaml")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Make it with: virtex-det data scenes" in done.stderr, done.stderr


def test_the_demo_runs_from_captions_to_its_page(run, tmp_path):
    done = run("virtex-det", "demo", "--quick")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    page = (tmp_path / "output" / "demo_quick" / "index.html").read_text()
    assert "virtex-det train --resume --config-file configs/detectron2/scenes_segm.yaml" in page
    assert [path.name for path in tmp_path.iterdir()] == ["output"]
