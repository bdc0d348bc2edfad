"""Plugins: imported once, kept with runs, never imported because of a file from elsewhere."""

import hashlib
import json
import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from detectron2.utils import comm

from tests.conftest import ROOT, TINY_PRETRAINING
from tests.processes import launch_processes
from virtex_det import load_config
from virtex_det import plugins as module
from virtex_det.benchmark.records import read_records
from virtex_det.cli.parsers import command_parser
from virtex_det.engine import Trainer, argument_parser, setup
from virtex_det.errors import UserError
from virtex_det.plugins import (
    check_imported,
    import_as,
    import_plugin,
    import_words,
    imported,
    keep_plugins,
    plugin_hashes,
    run_import_option,
)

PAGE = (ROOT / "docs" / "plugins.md").read_text()
KEYS = """from detectron2.config import CfgNode
from virtex_det import Role, register_config

@register_config
def add_keys(cfg):
    cfg.MODEL.MINE = CfgNode({"SIZE": 1})
    return {"MODEL.MINE": Role.RECIPE}
"""
CONFIG = "_BASE_: detectron2/scenes_segm.yaml\nMODEL: {MINE: {SIZE: 2}}\n"

pytestmark = pytest.mark.usefixtures("plugins")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(KEYS)
    return tmp_path


def test_a_file_is_imported_once_under_all_its_paths_and_names(folder):
    (folder / "copy").mkdir()
    (folder / "copy" / "renamed.py").write_text(KEYS)
    first = import_plugin("mine.py")
    assert import_plugin(folder / "mine.py") == import_plugin("copy/renamed.py") == first
    assert plugin_hashes() == {"mine.py": hashlib.sha256(KEYS.encode()).hexdigest()}
    assert import_words() == ["--import", str(folder / "mine.py")]


def test_a_module_is_imported_by_its_name_and_a_package_is_kept_whole(folder, monkeypatch):
    package = folder / "my_package"
    (package / "parts").mkdir(parents=True)
    (package / "__init__.py").write_text("from my_package.parts import keys\n")
    (package / "parts" / "keys.py").write_text(KEYS)
    monkeypatch.syspath_prepend(str(folder))
    plugin = import_plugin("my_package")
    assert {*plugin.files} == {"my_package/__init__.py", "my_package/parts/keys.py"}
    assert load_config().MODEL.MINE.SIZE == 1
    assert import_words() == ["--import", "my_package"]


BROKEN = {
    "raises": ("x = 1\nx / 0\n", r"mine.py, line 2: x / 0\nZeroDivisionError: division by zero$"),
    "syntax": ("x = 1\ndef f(:\n", r"mine.py, line 2: def f\(:\nSyntaxError: invalid syntax$"),
    "exits": ("raise SystemExit('no')", r"line 1: raise SystemExit\('no'\)\nSystemExit: no$"),
    "lacks": ("import not_there_1\n", r"line 1: import not_there_1\nModuleNotFoundError"),
    "bytes": ("x = '\0'", r"null byte"),
    "name": (
        "from detectron2.modeling import META_ARCH_REGISTRY\n\n"
        "@META_ARCH_REGISTRY.register()\nclass RetinaNet:\n    pass\n",
        r"line 3: @META(?s:.*)The name RetinaNet is taken in Detectron2's registry META_ARCH\.",
    ),
    "data": (
        "from detectron2.data import DatasetCatalog\nDatasetCatalog.register('scenes_val', list)\n",
        r"line 2: DatasetCatalog(?s:.*)scenes_val",
    ),
    "key": (KEYS.replace("MODEL.MINE", "MODEL.TEXTUAL"), r"line 4: (?s:.*)removes MODEL.TEXTUAL"),
    "role": (KEYS.replace('{"MODEL.MINE": Role.RECIPE}', "{}"), r"MODEL.MINE.SIZE has no role"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_fails_is_a_short_message_with_its_own_line(folder, case):
    source, message = BROKEN[case]
    (folder / "mine.py").write_text(source)
    with pytest.raises(UserError, match=message) as caught:
        import_plugin("mine.py")
    assert str(caught.value).startswith("The plugin ") and len(str(caught.value).splitlines()) < 8
    assert not imported()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mein.py", r"There is no plugin .*mein.py. The nearest: .*mine.py"),
        ("mine", r"There is no module mine. For the file write mine.py."),
        ("not_there_1", r"There is no module not_there_1."),
        ("sys", r"without a Python file"),
        ("my task", r"neither a Python file, such as my_task.py, nor the name of a module"),
        (3, r"given as a int"),
    ],
)
def test_what_cannot_be_found_says_so(folder, name, message):
    with pytest.raises(UserError, match=message):
        import_plugin(name)


def test_two_files_of_one_name_and_a_file_changed_in_between_are_refused(folder):
    import_plugin("mine.py")
    (folder / "other").mkdir()
    (folder / "other" / "mine.py").write_text("")
    with pytest.raises(UserError, match=r"Two plugins are called mine.py: .* and .*other/mine.py"):
        import_plugin("other/mine.py")
    (folder / "mine.py").write_text("x = 1")
    with pytest.raises(UserError, match=r"was changed after this process imported it"):
        import_plugin("mine.py")


def test_a_process_of_a_run_refuses_what_changed_while_the_run_started(folder, plugins):
    import_plugin("mine.py")
    sent = imported()
    plugins.forget()
    import_as(sent)
    assert load_config().MODEL.MINE.SIZE == 1
    plugins.forget()
    (folder / "mine.py").write_text("")
    with pytest.raises(UserError, match=r"mine.py was changed while its run started"):
        import_as(sent)


def test_entry_points_are_imported_with_the_first_config_and_errors_name_the_package(
    folder, monkeypatch
):
    entry = EntryPoint("mine", "my_entry", module.GROUP)
    monkeypatch.setattr(module, "_entry_points", lambda: (entry,))
    monkeypatch.syspath_prepend(str(folder))
    (folder / "my_entry.py").write_text("1 / 0\n")
    with pytest.raises(
        UserError, match=r"my_entry.py, line 1: 1 / 0(?s:.*)entry point mine .* Mend"
    ):
        load_config()
    (folder / "my_entry.py").write_text(KEYS)
    assert load_config().MODEL.MINE.SIZE == 1 and import_words() == []
    assert {*plugin_hashes()} == {"my_entry"}


def test_every_command_and_subcommand_has_the_option(folder):
    parser = command_parser("text")
    parser.add_subparsers().add_parser("run")
    parser.parse_args(["run", "--import", "mine.py"])
    argument_parser().parse_args(["--import", "mine.py", "SEED", "1"])
    assert load_config().MODEL.MINE.SIZE == 1


def test_imports_of_a_config_and_of_its_bases_are_relative_to_each(folder, monkeypatch, tmp_path):
    base = folder / "base"
    base.mkdir()
    (base / "base.yaml").write_text(f"IMPORTS: mine.py\n{CONFIG}")
    (folder / "mine.py").rename(base / "mine.py")
    (folder / "second.py").write_text("x = 1")
    (folder / "run.yaml").write_text("IMPORTS: [second.py]\n_BASE_: base/base.yaml\n")
    monkeypatch.chdir("/")
    cfg = load_config(folder / "run.yaml")
    assert cfg.MODEL.MINE.SIZE == 2 and {*plugin_hashes()} == {"mine.py", "second.py"}
    assert "IMPORTS" not in cfg.dump()  # a config that a run wrote asks for nothing


@pytest.mark.parametrize("named", ["3", "''", "('mine.py',)", "[[mine.py]]"])
def test_imports_are_names(folder, named):
    (folder / "run.yaml").write_text(f"IMPORTS: {named}\n")
    with pytest.raises(UserError, match=r"run.yaml imports .*expected the name"):
        load_config("run.yaml")


def test_an_override_and_an_unknown_key_say_how_to_import(folder):
    with pytest.raises(UserError, match="write --import PLUGIN"):
        load_config(overrides={"IMPORTS": "mine.py"})
    with pytest.raises(UserError, match=r"If a plugin has it, import that: --import my_task.py"):
        load_config(overrides={"QQXX": 1})


def as_a_run(folder: Path) -> Path:
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text(f"IMPORTS: ../mine.py\n{CONFIG}")
    return folder / "run" / "config.yaml"


def beside_weights(folder: Path) -> Path:
    path = as_a_run(folder)
    path.with_name("model_final.pth").touch()
    (path.parent / "deep").mkdir()
    return Path(path.rename(path.parent / "deep" / "mine.yaml").parent, "mine.yaml")


def as_a_base(folder: Path) -> Path:
    as_a_run(folder)
    (folder / "run.yaml").write_text("_BASE_: run/config.yaml\n")
    return folder / "run.yaml"


def behind_a_run(folder: Path) -> Path:
    path = as_a_run(folder)
    path.rename(folder / "own.yaml").write_text(f"IMPORTS: mine.py\n{CONFIG}")
    path.write_text("_BASE_: ../own.yaml\n")
    return path


def in_a_cache(folder: Path) -> Path:
    path = as_a_run(folder)
    return path.rename(path.with_name("run.yaml"))


@pytest.mark.parametrize(
    "file",
    [as_a_run, beside_weights, as_a_base, behind_a_run, in_a_cache],
    ids=lambda f: f.__name__,
)
def test_a_file_of_a_run_or_a_download_imports_nothing_unless_asked(folder, monkeypatch, file):
    path = file(folder)
    if file is in_a_cache:
        monkeypatch.setenv("HF_HOME", str(path.parent))
    if file is beside_weights:
        path.parent.with_name("config.yaml").touch()
    with pytest.raises(
        UserError, match=r"asks to import .*nothing is imported(?s:.*)--import .*mine"
    ):
        load_config(path)
    assert not imported()
    import_plugin("mine.py")
    assert load_config(path).MODEL.MINE.SIZE == 2


def test_the_task_of_the_page_trains_resumes_and_is_recorded(
    scenes, vocabulary, folder, plugins, capsys
):
    python, config = (
        re.search(rf"^```{kind}\n(.*?)^```", PAGE, re.M | re.S)[1] for kind in ("python", "yaml")
    )
    (folder / "focal_words.py").write_text(python)
    (folder / "focal_words.yaml").write_text(config)
    run = folder / "run"
    words = [*TINY_PRETRAINING, "INPUT.CAPTION.TOKENIZER", str(vocabulary), "OUTPUT_DIR", str(run)]
    begin = ["--config-file", "focal_words.yaml", *words, "SOLVER.MAX_ITER", "2"]
    trainer = Trainer(setup(argument_parser().parse_args(begin)))
    trainer.resume_or_load(resume=False)
    trainer.train()
    digits = hashlib.sha256(python.encode()).hexdigest()
    assert read_records(run)[-1].plugins == {"focal_words.py": digits}
    assert (run / "plugins" / "focal_words.py").read_text() == python
    assert json.loads((run / "plugins.json").read_text())[0]["sha256"] == digits

    plugins.forget()
    go_on = ["--resume", "--config-file", str(run / "config.yaml"), "SOLVER.MAX_ITER", "3"]
    option = f"--import {run}/plugins/focal_words.py"
    with pytest.raises(UserError, match=rf"focal_words.py \(sha256 {digits}\)(?s:.*){option}"):
        setup(argument_parser().parse_args(go_on))
    changed = python[: python.index("@META_ARCH_REGISTRY")]  # the model stays registered
    (folder / "focal_words.py").write_text(changed)
    import_plugin("focal_words.py")
    other = hashlib.sha256(changed.encode()).hexdigest()
    setup(argument_parser().parse_args(["--eval-only", *go_on]))
    assert re.search(
        rf"WARNING.*{digits}, now .*focal_words.py has {other}", capsys.readouterr().out
    )
    with pytest.raises(UserError, match=rf"has changed since(?s:.*){digits}(?s:.*){other}"):
        setup(argument_parser().parse_args(go_on))


def test_each_process_of_a_run_imports_what_the_first_did(folder):
    import_plugin("mine.py")
    launch_processes(write_size, str(folder), processes=2)
    assert {path.read_text() for path in folder.glob("size_*")} == {"1"}


def write_size(folder: str) -> None:
    size = load_config().MODEL.MINE.SIZE
    Path(folder, f"size_{comm.get_rank()}").write_text(str(size))


def test_a_run_keeps_no_plugins_where_there_are_none_and_says_if_its_list_is_damaged(
    folder, plugins
):
    import_plugin("mine.py")
    keep_plugins(folder / "a run")
    assert run_import_option("a run") == " --import 'a run/plugins/mine.py'"
    (folder / "a run" / "plugins.json").write_text('[{"name": "mine.py"}]')
    with pytest.raises(UserError, match=r"plugins.json, which names .* is damaged"):
        check_imported("a run")
    plugins.forget()
    keep_plugins("a run")
    assert not (folder / "a run" / "plugins.json").exists()
