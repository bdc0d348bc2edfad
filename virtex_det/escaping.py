"""Names and titles from users made inert, for each form in which they are shown: as text and nothing else."""

import logging
import os
import re
from collections.abc import Iterable
from typing import Any

# Characters that act instead of being seen: control characters, half surrogates, line and paragraph separators, and of
# the formatting ones those that turn the direction of what follows or are no part of any script.
_FORMATTING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2060\ufeff"
_SUSPECTS = re.compile(rf"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{_FORMATTING}\U000e0000-\U000e007f]")

# What Markdown takes for a column, code, emphasis, a tag, an entity, a link or a formula.
_MARKDOWN = re.compile(r"[\\|*`~$]|<(?=[\w/!?])|&(?=#?\w+;)|!?\[(?!\d+\])|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])")
_MARKDOWN_BEGINNING = re.compile(r"(#+|>|[-+=]+|\d+[.)])(?=\s|$)")
_FORMULA = re.compile(r"(^|[;,\t|])(\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")
_LATEX = str.maketrans(
    {character: rf"\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"}
    | {"<": "$<$", ">": "$>$", "±": r"$\pm$", "–": "--"}
)
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
# What a message on one screen has room for, in characters and lines.
_LONG_WORD = re.compile(r"\S{400,}")
_WORD_BEGINS, _WORD_ENDS, _LINE, _LINES = 200, 100, 2000, 60
_LEGEND = 80  # characters that a plot has room for


def visible(text: str, keep: str = "\n\t") -> str:
    r"""Return a text with what would act on a terminal or a page written as Python's escapes, for example ``\x1b``.

    Args:
        text: from anywhere.
        keep: of these characters those that stay; "" makes one line of it.
    """
    return _SUSPECTS.sub(lambda match: match[0] if match[0] in keep else _as_escape(match[0]), text)


def printable(path: str | os.PathLike[str]) -> str:
    """Return a file's name as text that can be printed and written, even where its bytes are not UTF-8."""
    try:
        return os.fsencode(path).decode(errors="replace")
    except UnicodeEncodeError:  # half a character, which no file can be called
        return visible(os.fspath(path))


def on_one_screen(message: str) -> str:
    """Return a message with very long words, lists and lines cut in the middle or at the end, and all ``visible``."""
    short = _LONG_WORD.sub(lambda match: f"{match[0][:_WORD_BEGINS]}...{match[0][-_WORD_ENDS:]}", message)
    lines = [line if len(line) <= _LINE else f"{line[:_LINE]} ..." for line in short.split("\n")]
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 5], f"... {len(lines) - _LINES + 1} more lines ...", *lines[-4:]]
    return visible("\n".join(lines))


class VisibleText(logging.Filter):
    """Makes lines of a log ``visible``: names of files and classes in them must not act on the terminal."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Put the text that is shown into the record, and let it pass."""
        text = record.getMessage()
        if _SUSPECTS.search(text):
            # Detectron2 colours some of its own lines.
            parts = _COLOUR.split(text) if not record.name.startswith("virtex_det") else [text]
            colours = [*_COLOUR.findall(text), ""] if len(parts) > 1 else [""]
            shown = [part for pair in zip(map(visible, parts), colours, strict=True) for part in pair]
            record.msg, record.args = "".join(shown), ()
        return True


def in_html(value: Any) -> Any:
    """Return a value that a Jinja template prints, its text ``visible``; the tags are autoescape's to escape."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


class Markdown(str):
    """Text that is Markdown already, such as a link: ``in_markdown`` leaves it as it is."""


def in_markdown(text: str) -> str:
    """Return a text for a cell, a heading or a line of a list in Markdown, all on one line."""
    if isinstance(text, Markdown):
        return text
    line = _MARKDOWN.sub(lambda match: "".join(f"\\{character}" for character in match[0]), visible(text, ""))
    if match := _MARKDOWN_BEGINNING.match(line):
        last = match.end() - 1
        return f"{line[:last]}\\{line[last:]}"
    return line


def in_code(lines: Iterable[str]) -> str:
    """Return shell lines as a block of Markdown that nothing in them can end."""
    text = "\n".join(visible(line) for line in lines)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}bash\n{text}\n{fence}"


def in_inline_code(text: str) -> str:
    """Return a text as code in a cell of Markdown, where a backtick and a bar cannot be escaped."""
    return f"`{visible(text, '').replace('`', chr(39)).replace('|', chr(166))}`"


def in_csv(value: Any) -> Any:
    """Return a cell for a spreadsheet: text that it would take for a formula begins with an apostrophe."""
    return _FORMULA.sub(r"\1'\2", visible(value, "")) if isinstance(value, str) else value


def in_latex(text: str) -> str:
    """Return a text for a cell of a LaTeX table."""
    escaped = visible(text, "").translate(_LATEX)
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped  # what \\ takes for an option


def in_plot(text: str) -> str:
    """Return a label for Matplotlib: no formula, not hidden from the legend, and short enough to be drawn."""
    line = visible(text, "")
    line = line if len(line) <= _LEGEND else f"{line[: _LEGEND - 1]}…"
    return (" " if line.startswith("_") else "") + line.replace("$", r"\$")


def _as_escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
