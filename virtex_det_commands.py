#!/usr/bin/env python3
"""The commands of virtex_det: their names, what each does, and ``virtex-det``, which starts them.

It lies beside the package: importing that takes seconds and needs Detectron2, and neither
``virtex-det -h`` nor ``virtex-det install-detectron2`` may.
"""

import difflib
import importlib.util
import os
import re
import runpy
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

PROGRAM = "virtex-det"
INSTALLER = "install-detectron2"


class Command(NamedTuple):
    """What a user can start.

    Attributes:
        name: as ``virtex-det`` knows it; one word or two.
        script: the same in a clone: ``tools/SCRIPT.py``.
        module: of virtex_det.cli, whose ``main`` does the work.
        sentence: what it does.
    """

    name: str
    script: str
    module: str
    sentence: str


COMMANDS = (
    Command(
        "init",
        "init_config",
        "init_config",
        "write a config for own data: one that suits them and this machine",
    ),
    Command(
        "train",
        "train_net",
        "train",
        "pretrain on captions, train detectors, and evaluate them",
    ),
    Command("evaluate", "evaluate", "evaluate", "evaluate a file of detections without a model"),
    Command("report", "report", "report", "write a run on one page: curves, AP, errors, images"),
    Command("predict", "predict", "predict", "find objects in pictures with a trained detector"),
    Command(
        "export", "export", "export", "write a trained detector for ONNX, TorchScript, torch.export"
    ),
    Command("caption", "caption", "caption", "caption images with a trained captioning model"),
    Command(
        "attention",
        "visualize_attention",
        "attention",
        "draw where a trained model looks for words",
    ),
    Command("probe", "probe", "probe", "measure what a backbone has learned, without a detector"),
    Command(
        "benchmark", "benchmark", "benchmark", "compare what detectors reach from several starts"
    ),
    Command("zoo", "model_zoo", "zoo", "list, describe, download and verify published weights"),
    Command("convert", "convert_weights", "convert", "convert weights for other code"),
    Command(
        "data check",
        "check_data",
        "check_data",
        "count what data have, and say what a run would refuse",
    ),
    Command(
        "data show",
        "show_data",
        "show_data",
        "write a page with the same, ground truth and augmented samples",
    ),
    Command(
        "data convert",
        "convert_data",
        "convert_data",
        "write own data as an annotation file of COCO's form",
    ),
    Command(
        "data scenes",
        "generate_scenes",
        "scenes",
        "write the built-in data: shapes, masks, captions",
    ),
    Command("data vocabulary", "build_vocabulary", "vocabulary", "make a vocabulary from captions"),
    Command("data concepts", "build_concepts", "concepts", "choose the words that ICMLM masks"),
    Command(
        "data captions", "describe_captions", "describe_captions", "compare captions in numbers"
    ),
    Command("data clusters", "build_clusters", "clusters", "divide captions into clusters"),
    Command(
        "data subset",
        "subset",
        "subset",
        "show a part of a data set, and list its images in a file",
    ),
    Command("demo", "demo", "demo", "captions in, AP out, on built-in data"),
    Command(
        INSTALLER,
        "install_detectron2",
        "install_detectron2",
        "install Detectron2 where it is missing",
    ),
)

_EPILOG = f"""
{PROGRAM} COMMAND -h shows the arguments of a command. Configs of the package are found by name in
any folder, e.g. detectron2/coco_segm_default_init_2x.yaml."""


def main() -> None:
    """Start the command that the command line names."""
    try:
        command, arguments = choose(sys.argv[1:])
    except BrokenPipeError:  # the reader of the list, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.argv = [f"{PROGRAM} {command.name}", *arguments]
    if command.name == INSTALLER:
        _run_installer()
        return
    module = import_module(f"virtex_det.cli.{command.module}")
    from virtex_det.engine import with_one_screen_errors

    with_one_screen_errors(module.main)


def choose(words: Sequence[str]) -> tuple[Command, list[str]]:
    """Return the command that a command line begins with, and its arguments.

    Exits after printing a list of commands if the words ask for it or name no command.
    """
    first, second = [*words, "", ""][:2]
    for name in (f"{first} {second}", first):
        for command in COMMANDS:
            if command.name == name:
                return command, list(words[len(name.split()) :])
    if first == "--version":
        from importlib.metadata import version

        print(PROGRAM, version("virtex_det"))
        sys.exit(0)
    group = first if any(command.name.startswith(f"{first} ") for command in COMMANDS) else ""
    asked, name = (second, f"{first} {second}") if group else (first, first)
    if asked in ("-h", "--help"):
        print(overview(group), flush=True)
        sys.exit(0)
    if not asked:
        print(overview(group), file=sys.stderr)
        sys.exit(2)
    nearest = difflib.get_close_matches(
        name, [command.name for command in COMMANDS], n=1, cutoff=0.4
    )
    hint = f" Did you mean {PROGRAM} {nearest[0]}?" if nearest else ""
    print(
        f"{PROGRAM}: there is no command {name}.{hint} All commands: {PROGRAM} -h", file=sys.stderr
    )
    sys.exit(2)


def overview(group: str = "") -> str:
    """Return all commands, or those of a group, with a sentence each."""
    shown = [command for command in COMMANDS if not group or command.name.startswith(f"{group} ")]
    width = max(len(command.name) for command in shown)
    lines = [f"usage: {PROGRAM} {f'{group} ' if group else ''}COMMAND [arguments]", ""]
    lines += [f"  {command.name:{width}}  {command.sentence}" for command in shown]
    return "\n".join(lines) + ("" if group else f"\n{_EPILOG}")


def as_called(text: str) -> str:
    """Return a text whose commands are written as this process was started.

    Texts name the scripts of a clone, ``python tools/train_net.py``. In a process that such a
    script has started they stay; everywhere else they become ``virtex-det train``.
    """
    if Path(next(iter(sys.argv), "")).parent.name == "tools":
        return text
    names = {command.script: f"{PROGRAM} {command.name}" for command in COMMANDS}
    script = r"(?<![\w./~-])(?:python )?tools/(\w+)\.py"  # not the end of a longer path
    return re.sub(script, lambda found: names.get(found[1], found[0]), text)


def own_command(script: str, *arguments: str) -> list[str]:
    """Return a command line that does the same as ``tools/SCRIPT.py``, for this installation.

    Args:
        script: of ``COMMANDS``.
        arguments: to the script.
    """
    [name] = [command.name for command in COMMANDS if command.script == script]
    return [sys.executable, str(Path(__file__).resolve()), *name.split(), *arguments]


def _run_installer() -> None:
    """Run the only command that works without Detectron2, by its path."""
    package = importlib.util.find_spec("virtex_det")
    assert package is not None and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0]) / "cli" / "install_detectron2.py"
    sys.exit(runpy.run_path(str(path))["main"]())


if __name__ == "__main__":
    main()
