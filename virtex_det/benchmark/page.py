"""A comparison as a Markdown page: tables, curves beside it, protocol, what was equal, how to repeat it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from matplotlib import rc_context
from matplotlib.figure import Figure

from virtex_det.benchmark.comparison import Comparison
from virtex_det.benchmark.conditions import conditions
from virtex_det.benchmark.plots import plot_fractions
from virtex_det.benchmark.rows import METRICS, Metrics
from virtex_det.benchmark.tables import render_markdown
from virtex_det.errors import UserError
from virtex_det.escaping import in_code, in_markdown
from virtex_det.files import refuse_special_target
from virtex_det.utils import replacing, write_atomically

PICTURE_FORMATS = (".png", ".svg", ".pdf")


def render_page(
    comparison: Comparison,
    cards: Mapping[str, Mapping[str, str]],
    commands: Sequence[str],
    *,
    picture: str,
    metrics: Metrics = METRICS,
) -> str:
    """Return the page; the same records give the same text.

    Args:
        comparison: what was measured.
        cards: of its protocols, by name.
        commands: shell lines that repeat it.
        picture: name of the file of curves.
        metrics: to show.
    """
    parts = [
        f"# {in_markdown(comparison.title)}",
        re.sub("^### ", "## ", render_markdown(comparison, metrics), flags=re.MULTILINE).strip(),
        f"![{in_markdown(' and '.join(metrics))} by part of the labels; bands are one standard deviation over seeds]"
        f"({quote(picture)})",
        *(_card(name, card) for name, card in cards.items()),
        "## What is equal, and what is not",
        "\n".join(f"- {in_markdown(sentence)}" for sentence in conditions(comparison)),
        "## Do it again",
        in_code(commands),
    ]
    return "\n\n".join(parts) + "\n"


def write_page(
    path: Path,
    comparison: Comparison,
    cards: Mapping[str, Mapping[str, str]],
    commands: Sequence[str],
    metrics: Metrics = METRICS,
) -> list[Path]:
    """Write the page, and its curves beside it.

    Returns:
        The files, the page last.
    """
    refuse_special_target(path)
    picture = path.with_suffix(".svg")
    save_figure(plot_fractions(comparison, metrics=metrics), picture)
    write_atomically(path, render_page(comparison, cards, commands, picture=picture.name, metrics=metrics))
    return [picture, path]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the file's suffix; the same figure gives the same bytes.

    Raises:
        UserError: there is no such format.
    """
    if path.suffix not in PICTURE_FORMATS:
        raise UserError(f"Pictures are written as {', '.join(PICTURE_FORMATS)}, and {path} ends on none of these.")
    dates = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with replacing(path) as unfinished, rc_context({"svg.hashsalt": "virtex_det"}):
        figure.savefig(unfinished, format=path.suffix[1:], dpi=150, metadata=dates[path.suffix])


def _card(name: str, card: Mapping[str, str]) -> str:
    rows = "\n".join(f"| {in_markdown(heading)} | {in_markdown(words)} |" for heading, words in card.items())
    return f"## Protocol {in_markdown(name)}\n\n| | |\n| --- | --- |\n{rows}"
