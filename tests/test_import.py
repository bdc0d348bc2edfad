"""Importing virtex_det: what it takes in, and what it says when Detectron2 is missing."""

import ast
import graphlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from virtex_det.missing_packages import explain_missing

ROOT = Path(__file__).resolve().parents[1]
TOOLS = [
    path for path in sorted((ROOT / "tools").glob("*.py")) if path.stem != "install_detectron2"
]


PACKAGE = ROOT / "virtex_det"
# The rooms, and the rooms that each may import. The modules beside the rooms, such as errors.py,
# import no room. The one pair that knows each other: a checkpoint may be named by the model zoo,
# and the model zoo reads checkpoints.
ROOMS = {
    "config": set(),
    "pages": set(),
    "benchmark": {"pages"},
    "data": {"config"},
    "solver": {"config"},
    "modeling": {"config", "data"},
    "checkpoint": {"config", "modeling", "model_zoo"},
    "model_zoo": {"config", "data", "modeling", "checkpoint", "benchmark"},
    "evaluation": {"config", "data", "modeling"},
    "protocols": {"config", "benchmark"},
}
ROOMS["engine"] = {*ROOMS}
ROOMS["inference"] = {*ROOMS}
ROOMS["experiments"] = {*ROOMS}
ROOMS["own_data"] = {*ROOMS}
ROOMS["run_page"] = {*ROOMS}
ROOMS["cli"] = {*ROOMS}


def imports_of(path: Path) -> set[str]:
    """Return what a file imports, at its top or in a function, by full names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports of this package are written in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_in(path: Path) -> set[str]:
    """Return the rooms that a file imports."""
    parts = [name.split(".") for name in imports_of(path)]
    return {part[1] for part in parts if part[0] == "virtex_det" and len(part) > 1} & {*ROOMS}


@pytest.mark.parametrize(
    "room", sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
)
def test_a_room_imports_only_rooms_below_it(room):
    wrong = {
        f"{path.relative_to(ROOT)} imports {other}"
        for path in (PACKAGE / room).rglob("*.py")
        for other in rooms_in(path) - ROOMS[room] - {room}
    }
    assert not wrong


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_a_module_beside_the_rooms_imports_none_of_them(path):
    assert not rooms_in(path)


def test_the_rooms_have_no_circle_but_the_one_that_is_named():
    arrows = {
        room: below - {"model_zoo"} if room == "checkpoint" else below
        for room, below in ROOMS.items()
    }
    assert list(graphlib.TopologicalSorter(arrows).static_order())


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter, which has imported nothing yet."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600
    )


# In this order; the rooms must not import for the package what it must not import itself.
IMPORTED = (
    "virtex_det",
    "virtex_det.data",
    "virtex_det.engine",
    "virtex_det.benchmark",
    "virtex_det.experiments.slurm",
    "virtex_det.benchmark.tables",
)


@pytest.fixture(scope="module")
def modules_after() -> dict[str, set[str]]:
    """All modules of a new interpreter after importing each of IMPORTED."""
    done = run_python(
        "import importlib, json, sys\n"
        f"for name in {IMPORTED}:\n"
        "    importlib.import_module(name)\n"
        "    print(json.dumps([name, [*sys.modules]]))\n"
    )
    assert done.returncode == 0, done.stderr
    return {name: set(modules) for name, modules in map(json.loads, done.stdout.splitlines())}


def test_importing_the_package_imports_no_pretraining_dependency(modules_after):
    from distutils.core import run_setup

    from setuptools import Distribution  # noqa: F401  makes distutils importable on Python 3.12

    wanted = run_setup(str(ROOT / "setup.py"), stop_after="init").extras_require["pretrain"]
    names = {re.match(r"[\w-]+", requirement).group() for requirement in wanted}
    names = {"sklearn" if name == "scikit-learn" else name for name in names}
    assert "sentencepiece" in names
    assert not names & modules_after["virtex_det"]


@pytest.mark.parametrize(
    ("imported", "module"),
    [
        ("virtex_det", "requests"),  # the model zoo's, for downloads
        ("virtex_det", "virtex_det.checkpoint"),
        ("virtex_det.data", "sentencepiece"),
        ("virtex_det.benchmark", "pandas"),  # of tables alone
        ("virtex_det.experiments.slurm", "submitit"),
    ],
)
def test_seldom_needed_modules_are_imported_on_use(imported, module, modules_after):
    assert module not in modules_after[imported]


def test_tables_import_pandas(modules_after):
    assert "pandas" in modules_after["virtex_det.benchmark.tables"]


def test_importing_the_package_registers_its_backbones_and_imports_the_rest_on_first_use():
    done = run_python(
        "import sys, virtex_det\n"
        "from detectron2.modeling import BACKBONE_REGISTRY as registry\n"
        "ours = ('build_caption_resnet_backbone', 'build_caption_resnet_fpn_backbone')\n"
        "print(all(name in registry for name in ours))\n"
        "rooms = ('engine', 'inference', 'checkpoint', 'evaluation')\n"
        "lazy = {'virtex_det.' + name for name in rooms}\n"
        "print(sorted(lazy & set(sys.modules)))\n"
        "print([name for name in virtex_det.__all__ if not callable(getattr(virtex_det, name))])\n"
        "print(sorted(lazy - set(sys.modules)), set(virtex_det.__all__) <= set(dir(virtex_det)))\n"
        "print(hasattr(virtex_det, 'Detektor'))\n"
    )
    expected = ["True", "[]", "[]", "[] True", "False"]
    assert done.stdout.splitlines() == expected, done.stderr


def test_a_detectron2_that_lacks_a_package_says_which():
    done = run_python("import sys; sys.modules['fvcore'] = None; import virtex_det")
    assert "fvcore" in done.stderr.strip().splitlines()[-1]


def test_a_missing_detectron2_gives_one_line_with_the_command_to_install_it():
    done = run_python("import sys; sys.modules['detectron2'] = None; import virtex_det")
    [last_line] = done.stderr.strip().splitlines()
    assert done.returncode == 1 and "needs Detectron2" in last_line
    assert last_line.endswith("install it with: virtex-det install-detectron2")


@pytest.mark.parametrize(
    ("script", "advice"),
    [
        ("virtex_det_commands.py train", "virtex-det install-detectron2"),
        ("tools/train_net.py", "python tools/install_detectron2.py"),
        ("tools/model_zoo.py list", "python tools/install_detectron2.py"),
    ],
)
def test_a_command_without_detectron2_names_the_command_to_install_it(script, advice):
    block = "import runpy, sys; sys.modules['detectron2'] = None; sys.argv = "
    done = run_python(
        f"{block}'{script}'.split(); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    [last_line] = done.stderr.strip().splitlines()
    assert (
        done.returncode == 1
        and last_line.startswith("error: ")
        and last_line.endswith(f"with: {advice}")
    )


def test_without_torch_pytorchs_own_command_is_named():
    done = run_python("import sys; sys.modules['torch'] = None; import virtex_det")
    assert "needs PyTorch" in done.stderr and "pip install torch torchvision" in done.stderr


def test_the_help_of_the_console_command_imports_nothing_of_the_package():
    done = run_python(
        "import atexit, sys, virtex_det_commands\n"
        "sys.argv = ['virtex-det', '-h']\n"
        "packages = {'numpy', 'torch', 'virtex_det'}\n"
        "atexit.register(lambda: print(packages & {*sys.modules}))\n"
        "virtex_det_commands.main()\n"
    )
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "set()", done.stderr


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_every_tool_imports_the_package_first(tool):
    body = ast.parse(tool.read_text()).body
    imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports
    ]
    assert names[0].startswith("virtex_det.cli.")
    assert not any(isinstance(node, ast.Try) for node in body)


def test_a_tool_that_is_broken_inside_shows_its_traceback():
    done = run_python(
        "import runpy, sys, virtex_det.data.training_set as broken\n"
        "del broken.subset_in\n"
        "sys.argv = ['subset.py', '-h']\n"
        "runpy.run_path('tools/subset.py', run_name='__main__')\n"
    )
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert "cannot import name 'subset_in'" in done.stderr.strip().splitlines()[-1]


def test_a_missing_module_of_an_installed_package_is_not_a_missing_package():
    error = ModuleNotFoundError("No module named 'fvcore.nothing'", name="fvcore.nothing")
    assert explain_missing(error) is error
    ours = ModuleNotFoundError("No module named 'virtex_det.nothing'", name="virtex_det.nothing")
    assert explain_missing(ours) is ours
