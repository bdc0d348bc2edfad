"""Escaping of users' names and titles for every output format, so that they are only text."""

import logging
import os
import re
from collections.abc import Iterable
from typing import Any, TextIO

# Invisible characters with an effect: control characters, lone surrogates, line and paragraph
# separators, and formatting characters that change the text direction or belong to no script.
_FORMATTING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2060\ufeff"
_SUSPECTS = re.compile(
    rf"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{_FORMATTING}\U000e0000-\U000e007f]"
)

# Markdown's syntax of columns, code, emphasis, tags, entities, links and formulas.
_MARKDOWN = re.compile(
    r"[\\|*`~$]|<(?=[\w/!?])|&(?=#?\w+;)|!?\[(?!\d+\])|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])"
)
_MARKDOWN_BEGINNING = re.compile(r"(#+|>|[-+=]+|\d+[.)])(?=\s|$)")
_FORMULA = re.compile(r"(^|[;,\t|])(\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")
_LATEX = str.maketrans(
    {character: rf"\{character}" for character in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "|": r"\textbar{}",
    }
    | {"<": "$<$", ">": "$>$", "±": r"$\pm$", "–": "--"}
)
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
# Limits of a message on one screen, in characters and lines.
_LONG_WORD = re.compile(r"\S{400,}")
_WORD_BEGINS, _WORD_ENDS, _LINE, _LINES = 200, 100, 2000, 60
_LEGEND = 80  # most characters of a plot's label


def visible(text: str, keep: str = "\n\t") -> str:
    r"""Return a text with its control characters as Python's escapes, such as ``\x1b``.

    Args:
        text: any text.
        keep: control characters to keep; "" for a result on one line.

    Example:
        >>> visible("a\tb\x1b[1m", keep="")
        'a\\tb\\x1b[1m'
    """
    return _SUSPECTS.sub(lambda match: match[0] if match[0] in keep else _as_escape(match[0]), text)


def say(text: object, file: TextIO | None = None) -> None:
    """Print a text, ``visible``: names and captions in it must not act on the terminal."""
    print(visible(str(text)), file=file, flush=True)


def log_visibly(level: int = logging.WARNING, form: str = "%(levelname)s: %(message)s") -> None:
    """Let a command that trains nothing write its log, ``visible``, to the terminal."""
    logging.basicConfig(level=level, format=form)
    for handler in logging.getLogger().handlers:
        handler.addFilter(VisibleText())


def printable(path: str | os.PathLike[str]) -> str:
    """Return a file's name as printable text, even if its bytes are not UTF-8."""
    try:
        return os.fsencode(path).decode(errors="replace")
    except UnicodeEncodeError:  # half a character, which no file can be called
        return visible(os.fspath(path))


def on_one_screen(message: str) -> str:
    """Return a message as ``visible`` text, with very long words, lines and lists shortened."""
    short = _LONG_WORD.sub(
        lambda match: f"{match[0][:_WORD_BEGINS]}...{match[0][-_WORD_ENDS:]}", message
    )
    lines = [line if len(line) <= _LINE else f"{line[:_LINE]} ..." for line in short.split("\n")]
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 5], f"... {len(lines) - _LINES + 1} more lines ...", *lines[-4:]]
    return visible("\n".join(lines))


class VisibleText(logging.Filter):
    """Makes log lines ``visible``: names in them must not control the terminal."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape the record's text, and let the record pass."""
        text = record.getMessage()
        if _SUSPECTS.search(text):
            # Detectron2 colours some of its own lines.
            parts = _COLOUR.split(text) if not record.name.startswith("virtex_det") else [text]
            colours = [*_COLOUR.findall(text), ""] if len(parts) > 1 else [""]
            shown = [
                part for pair in zip(map(visible, parts), colours, strict=True) for part in pair
            ]
            record.msg, record.args = "".join(shown), ()
        return True


class Markdown(str):
    """Text that is Markdown already, such as a link: ``in_markdown`` leaves it as it is."""


def in_markdown(text: str) -> str:
    """Return a text for a table cell, a heading or a list item in Markdown, on one line."""
    if isinstance(text, Markdown):
        return text
    line = _MARKDOWN.sub(
        lambda match: "".join(f"\\{character}" for character in match[0]), visible(text, "")
    )
    if match := _MARKDOWN_BEGINNING.match(line):
        last = match.end() - 1
        return f"{line[:last]}\\{line[last:]}"
    return line


def in_code(lines: Iterable[str]) -> str:
    """Return shell lines as a Markdown code block, with a fence longer than any in them."""
    text = "\n".join(visible(line) for line in lines)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}bash\n{text}\n{fence}"


def in_inline_code(text: str) -> str:
    """Return a text as code in a Markdown cell; backticks and bars, without escapes, change."""
    return f"`{visible(text, '').replace('`', chr(39)).replace('|', chr(166))}`"


def in_csv(value: Any) -> Any:
    """Return a spreadsheet cell; text that looks like a formula gets an apostrophe in front."""
    return _FORMULA.sub(r"\1'\2", visible(value, "")) if isinstance(value, str) else value


def in_latex(text: str) -> str:
    """Return a text for a cell of a LaTeX table."""
    escaped = visible(text, "").translate(_LATEX)
    # an option of \\ otherwise
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped


def in_plot(text: str) -> str:
    """Return a label for Matplotlib: not a formula, not hidden from the legend, and short."""
    line = visible(text, "")
    line = line if len(line) <= _LEGEND else f"{line[: _LEGEND - 1]}…"
    return (" " if line.startswith("_") else "") + line.replace("$", r"\$")


def _as_escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
