"""Importing virtex_det: what it takes in, and what it says when Detectron2 is missing."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter: what this one has imported already would hide what an import takes in."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_importing_the_package_takes_in_no_pretraining_dependency():
    from distutils.core import run_setup

    from setuptools import Distribution  # noqa: F401  makes distutils importable on Python 3.12

    wanted = run_setup(str(ROOT / "setup.py"), stop_after="init").extras_require["pretrain"]
    names = sorted(re.match(r"[\w-]+", requirement).group() for requirement in wanted)
    names = ["sklearn" if name == "scikit-learn" else name for name in names]
    done = run_python(f"import sys, virtex_det; print(sorted(set({names}) & set(sys.modules)))")
    assert "sentencepiece" in names
    assert done.stdout.strip() == "[]", done.stderr


def test_importing_the_package_registers_its_backbones():
    done = run_python(
        "import virtex_det\n"
        "from detectron2.modeling import BACKBONE_REGISTRY as registry\n"
        "print('build_caption_resnet_backbone' in registry and 'build_caption_resnet_fpn_backbone' in registry)"
    )
    assert done.stdout.strip() == "True", done.stderr


def test_a_detectron2_that_lacks_a_package_says_which():
    done = run_python("import sys; sys.modules['fvcore'] = None; import virtex_det")
    assert "fvcore" in done.stderr.strip().splitlines()[-1]


def test_a_missing_detectron2_gives_one_line_with_the_command_to_install_it():
    done = run_python("import sys; sys.modules['detectron2'] = None; import virtex_det")
    last_line = done.stderr.strip().splitlines()[-1]
    command = re.search(r"python (tools/\S+\.py)$", last_line)
    assert done.returncode == 1
    assert "needs Detectron2" in last_line
    assert command and (ROOT / command.group(1)).is_file()
