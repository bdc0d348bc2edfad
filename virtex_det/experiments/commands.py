"""The shell lines that repeat the runs of a matrix, as its page shows them."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from virtex_det.benchmark.comparison import Cell, share
from virtex_det.config.files import CONFIGS
from virtex_det.experiments.runs import Run
from virtex_det_commands import as_called


def repeat_commands(
    cells: Mapping[Cell, Run], output: Path, preparation: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Return the commands behind each row: its pretraining, then the measured runs, seed by seed.

    Args:
        cells: the measured runs of a matrix.
        output: folder of the runs.
        preparation: shell lines that come before the runs.
    """
    several = len({cell.protocol for cell in cells}) > 1
    lines: dict[str, list[str]] = {}
    if preparation:
        lines["data and vocabulary"] = list(preparation)
    for cell, run in cells.items():
        protocol = f", {cell.protocol}" if several else ""
        row = lines.setdefault(f"{cell.start}{protocol}, {share(cell.fraction)} of the labels", [])
        for each in (run.after, run):
            if each:
                words = [word.removeprefix(f"{CONFIGS.parent}/") for word in each.arguments()]
                line = as_called(f"python tools/{each.script}.py {shlex.join(words)}")
                if line not in row:
                    row.append(line)
    return portable(lines, output)


def portable(commands: Mapping[str, list[str]], output: Path) -> dict[str, list[str]]:
    """Return shell lines with ``$OUTPUT`` for a folder outside the working folder.

    Args:
        commands: lines by what they make.
        output: folder of the runs.
    """
    if not output.is_absolute() or output.is_relative_to(Path.cwd()):
        return dict(commands)
    name = shlex.quote(output.name)
    found = {"folder of the runs": [f"export OUTPUT={name}  # or another folder"]}
    for row, lines in commands.items():
        words = [[_portable_word(word, output) for word in shlex.split(line)] for line in lines]
        found[row] = list(map(" ".join, words))
    return found


def _portable_word(word: str, output: Path) -> str:
    """Quote a word for a shell, with ``$OUTPUT`` for the folder at the beginning of a path."""
    parts = re.split(rf"(?<![\w.~/-]){re.escape(str(output))}(?=/)", word)
    if len(parts) == 1:
        return shlex.quote(word)
    if shlex.quote(word) == word:
        return "$OUTPUT".join(parts)
    escaped = [re.sub(r'[$`"\\]', r"\\\g<0>", part) for part in parts]
    return '"' + "$OUTPUT".join(escaped) + '"'
