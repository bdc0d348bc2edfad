"""Install Detectron2, and the LVIS reader that it needs, into the Python that runs this.

    virtex-det install-detectron2           where virtex_det is installed
    python tools/install_detectron2.py      in a clone

A module that is already there is kept. Detectron2 is not on PyPI under its own name: sal-detectron2
0.7.2 is its main branch of April 2024. That wheel is tagged for Python 3.10, but virtex_det uses
only plain Python of it, so pip is told to download the wheel for 3.10. Both wheels come without
their dependencies, which setup.py lists: Detectron2 asks for numpy<2, which it does not need, and
lvis for opencv-python, which would overwrite opencv-python-headless.
"""

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import NamedTuple


class Wheel(NamedTuple):
    """A wheel on PyPI: the module that it provides, its distribution and the sha256 of its file."""

    module: str
    distribution: str
    version: str
    sha256: str


LVIS_SHA256 = "4f07153330df342b3161fafb46641ce7c02864113a8ddf0d6ffab6b02407bef0"
DETECTRON2_SHA256 = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
WHEELS = (
    Wheel("lvis", "lvis", "0.5.3", LVIS_SHA256),
    Wheel("detectron2", "sal-detectron2", "0.7.2", DETECTRON2_SHA256),
)
PIP = "-m pip install --quiet --disable-pip-version-check --no-deps --require-hashes"
ANY_PYTHON = (
    "--python-version=3.10 --implementation=cp --abi=none --platform=any --only-binary=:all:"
)
ABSENT = 3  # exit code of the probe
PROBE = (
    "import importlib.util as u, sys; "
    f"u.find_spec(sys.argv[1]) or sys.exit({ABSENT}); __import__(sys.argv[1])"
)


class InstallError(Exception):
    """The wheel could not be installed; the message is one line."""


def last_line(text: str) -> str:
    """Return the last line of an output that is not blank: Python and pip end with the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def is_present(module: str) -> bool:
    """Return whether a new process of this Python can import a module.

    Raises:
        InstallError: it is there but fails to import. It may be the user's own build, so it is not
            replaced.
    """
    # Not in the current folder: a clone named detectron2 in it would be taken for the module.
    neutral = sysconfig.get_path("stdlib")
    probe = subprocess.run(
        [sys.executable, "-c", PROBE, module], cwd=neutral, capture_output=True, text=True
    )
    if probe.returncode not in (0, ABSENT):
        problem = f"{module} is installed but cannot be imported ({last_line(probe.stderr)})"
        raise InstallError(f"{problem}; run pip install -e . first, or uninstall {module}")
    return probe.returncode == 0


def download(wheel: Wheel, target: Path) -> None:
    """Unpack a wheel into a folder with pip, which refuses a file with another sha256."""
    requirements = target / "requirements.txt"
    requirements.write_text(
        f"{wheel.distribution}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8"
    )
    command = [sys.executable, *PIP.split(), *ANY_PYTHON.split()]
    command += ["--requirement", str(requirements), "--target", str(target)]
    pip = subprocess.run(command, capture_output=True, text=True)
    if pip.returncode != 0:
        errors = [line for line in pip.stderr.splitlines() if line.startswith("ERROR:")]
        problem = errors[0] if errors else last_line(pip.stderr)
        raise InstallError(f"pip could not install {wheel.distribution}: {problem}")


def install(wheel: Wheel, site_packages: Path) -> None:
    """Move a wheel's module and its record into site-packages.

    The module comes last, so that an interrupted install is repeated. Everything else is left out:
    sal-detectron2 also holds a top-level package named "tools".
    """
    with tempfile.TemporaryDirectory(dir=site_packages, prefix=".virtex_det-") as folder:
        download(wheel, Path(folder))
        record = f"{wheel.distribution.replace('-', '_')}-{wheel.version}.dist-info"
        for name in (record, wheel.module):
            shutil.rmtree(site_packages / name, ignore_errors=True)
            (Path(folder) / name).rename(site_packages / name)


def main() -> int:
    """Install what is missing; return the exit code."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    site_packages = Path(sysconfig.get_path("purelib"))
    try:
        for wheel in WHEELS:
            if is_present(wheel.module):
                print(f"{wheel.module}: already here, kept")
                continue
            install(wheel, site_packages)
            print(
                f"{wheel.module}: installed {wheel.distribution} {wheel.version}, sha256 verified"
            )
    except (InstallError, OSError) as error:
        print(f"install_detectron2: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
