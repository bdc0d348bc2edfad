"""The console command, its list of commands, and the scripts of tools/ that are the same."""

import re
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import virtex_det_commands
from virtex_det.errors import UserError
from virtex_det.signals import command
from virtex_det_commands import COMMANDS, as_called, choose, main, overview, own_command

ROOT = Path(__file__).resolve().parents[1]
BY_NAME = {command.name: command for command in COMMANDS}


def run(monkeypatch, capsys, start, *argv: str) -> tuple[str, int | str | None]:
    """Return what a command prints, and the code with which it exits."""
    monkeypatch.setattr(sys, "argv", [*argv])
    with pytest.raises(SystemExit) as stopped:
        start()
    printed = capsys.readouterr()
    return printed.out + printed.err, stopped.value.code


def test_every_script_and_every_module_is_a_command():
    scripts = {path.stem for path in (ROOT / "tools").glob("*.py")}
    modules = {path.stem for path in (ROOT / "virtex_det" / "cli").glob("*.py")}
    assert {command.script for command in COMMANDS} == scripts
    assert {command.module for command in COMMANDS} == modules - {"__init__", "__main__", "parsers"}


@pytest.mark.parametrize("name", BY_NAME)
def test_help_is_that_of_the_script_under_the_names_of_the_console_command(
    name, monkeypatch, capsys
):
    monkeypatch.setenv("COLUMNS", "200")  # other names break lines elsewhere
    script = ROOT / "tools" / f"{BY_NAME[name].script}.py"
    start = lambda: runpy.run_path(str(script), run_name="__main__")  # noqa: E731
    expected, code = run(monkeypatch, capsys, start, str(script), "-h")
    assert code == 0 and expected.startswith(f"usage: {script.name}")
    printed, code = run(monkeypatch, capsys, main, "virtex-det", *name.split(), "-h")
    assert code == 0 and printed.startswith(f"usage: virtex-det {name}")
    if name != "install-detectron2":  # it names both
        assert not re.findall(r"tools/\w+\.py", printed)
        expected = as_called(expected)
    assert printed.partition("\n\n")[2].split() == expected.partition("\n\n")[2].split()


def test_commands_are_listed_with_a_sentence_each(monkeypatch, capsys):
    printed, code = run(monkeypatch, capsys, main, "virtex-det", "-h")
    assert code == 0 and all(command.sentence in printed for command in COMMANDS)
    printed, code = run(monkeypatch, capsys, main, "virtex-det", "data", "--help")
    assert code == 0 and "data subset" in printed and "train" not in printed
    assert max(map(len, overview().splitlines())) <= 100


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "data vocabulary"),
        (["data"], "data vocabulary"),
        (["trian"], "there is no command trian. Did you mean virtex-det train?"),
        (
            ["data", "subsets"],
            "there is no command data subsets. Did you mean virtex-det data subset?",
        ),
        (["--config-file", "x.yaml"], "there is no command --config-file."),
    ],
)
def test_no_command_or_an_unknown_one_is_exit_code_2_and_says_what_there_is(
    words, said, monkeypatch, capsys
):
    printed, code = run(monkeypatch, capsys, main, "virtex-det", *words)
    assert code == 2 and said in printed and "Traceback" not in printed


def test_the_words_after_a_command_are_passed_to_it():
    assert choose(["data", "subset", "--seed", "1"]) == (BY_NAME["data subset"], ["--seed", "1"])
    assert choose(["train", "-h"]) == (BY_NAME["train"], ["-h"])


def test_a_mistake_of_the_user_is_one_screen_that_names_the_console_command(monkeypatch, capsys):
    printed, code = run(monkeypatch, capsys, main, "virtex-det", "zoo", "list", "no such weights")
    assert (
        code == 1
        and printed.startswith("\nerror: No weights match")
        and "List all: virtex-det zoo list" in printed
    )


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("tools/train_net.py", "python tools/train_net.py with tools/subset.py and tools/other.py"),
        (
            "/clone/tools/caption.py",
            "python tools/train_net.py with tools/subset.py and tools/other.py",
        ),
        ("virtex-det train", "virtex-det train with virtex-det data subset and tools/other.py"),
        ("my_train.py", "virtex-det train with virtex-det data subset and tools/other.py"),
    ],
)
def test_texts_name_the_commands_as_the_process_was_started(script, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", [script])
    text = "python tools/train_net.py with tools/subset.py and tools/other.py"
    assert as_called(text) == expected and str(UserError(text)) == expected


@pytest.mark.parametrize(
    "path", ["/clone/tools/demo.py", "../tools/demo.py", "my-tools/demo.py", "~/tools/demo.py"]
)
def test_a_users_path_that_ends_like_a_script_is_not_changed(path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["virtex-det train"])
    assert as_called(f"{path} is no config") == f"{path} is no config"


def test_a_process_without_a_command_line_has_texts(monkeypatch):
    monkeypatch.setattr(sys, "argv", [])
    assert as_called("tools/demo.py") == "virtex-det demo"


@pytest.mark.parametrize(
    ("argv", "plain", "under_torchrun"),
    [
        (
            ["virtex-det train", "SEED", "1"],
            "virtex-det train --resume SEED 1",
            "torchrun ... -m virtex_det.cli train --resume SEED 1",
        ),
        (
            ["tools/train_net.py", "--resume"],
            "python tools/train_net.py --resume",
            "torchrun ... tools/train_net.py --resume",
        ),
        (
            ["my folder/train.py", "a b"],
            "python 'my folder/train.py' --resume 'a b'",
            "torchrun ... 'my folder/train.py' --resume 'a b'",
        ),
    ],
)
def test_the_command_to_continue_is_the_one_that_was_typed(
    argv, plain, under_torchrun, monkeypatch
):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setattr(sys, "argv", argv)
    assert command("--resume") == plain
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert command("--resume") == under_torchrun


def test_an_own_process_is_started_by_this_python():
    python, front, *words = own_command("build_vocabulary", "--dataset", "a b")
    assert python == sys.executable and Path(front).name == "virtex_det_commands.py"
    assert choose(words) == (BY_NAME["data vocabulary"], ["--dataset", "a b"])


@pytest.mark.parametrize("module", [c.module for c in COMMANDS if c.module != "install_detectron2"])
def test_every_command_has_a_main_that_says_what_it_does(module):
    main = import_module(f"virtex_det.cli.{module}").main
    assert main.__doc__ and main.__doc__.endswith(".")


def test_a_closed_pipe_ends_the_list_without_a_traceback():
    command = [sys.executable, virtex_det_commands.__file__, "-h"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 1
