"""Importing virtex_det: what it takes in, and what it says when Detectron2 is missing."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from virtex_det.missing_packages import explain_missing

ROOT = Path(__file__).resolve().parents[1]
TOOLS = [path for path in sorted((ROOT / "tools").glob("*.py")) if path.stem != "install_detectron2"]


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
    [last_line] = done.stderr.strip().splitlines()
    command = re.search(r"python (tools/\S+\.py)$", last_line)
    assert done.returncode == 1
    assert "needs Detectron2" in last_line
    assert command and (ROOT / command.group(1)).is_file()


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_every_tool_imports_the_package_first_so_that_it_can_say_what_is_missing(tool):
    body = ast.parse(tool.read_text()).body
    imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports]
    foreign = [name for name in names if name.partition(".")[0] not in sys.stdlib_module_names]
    assert foreign[0].partition(".")[0] == "virtex_det"
    assert not any(isinstance(node, ast.Try) for node in body)


def test_a_tool_that_is_broken_inside_shows_its_traceback():
    run = "import runpy, sys; sys.argv = ['subset.py', '-h']; runpy.run_path('tools/subset.py', run_name='__main__')"
    done = run_python(f"import virtex_det.data.training_set as broken; del broken.part_in; {run}")
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert "cannot import name 'part_in'" in done.stderr.strip().splitlines()[-1]


def test_a_module_of_a_package_that_is_there_is_no_missing_package():
    error = ModuleNotFoundError("No module named 'fvcore.nothing'", name="fvcore.nothing")
    assert explain_missing(error) is error
    ours = ModuleNotFoundError("No module named 'virtex_det.nothing'", name="virtex_det.nothing")
    assert explain_missing(ours) is ours
