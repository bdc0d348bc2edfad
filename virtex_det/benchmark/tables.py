"""The tables of a comparison in Markdown, CSV and LaTeX, with published numbers beside ours."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

from virtex_det.benchmark.comparison import Comparison
from virtex_det.benchmark.published import PublishedResult, published_for
from virtex_det.benchmark.rows import METRICS, Metrics, Row, reached, rows, share
from virtex_det.benchmark.statistics import PairedTest, Spread
from virtex_det.escaping import in_csv, in_latex, in_markdown, visible

MIXED = "Several protocols stand in this table. Their numbers do not compare: read the rows of one at a time."
NOTHING = "–"


class Grid(NamedTuple):
    """A table on its way to a format.

    Attributes:
        title: above it.
        head: of its columns.
        lines: its cells.
        bold: (line, column) of the best mean of each column among our own rows.
        notes: below it.
    """

    title: str
    head: list[str]
    lines: list[list[str]]
    bold: set[tuple[int, int]]
    notes: list[str]


def render_markdown(comparison: Comparison, metrics: Metrics = METRICS) -> str:
    """Return a table per metric, a line per start and a column per part of the labels, and one of the differences."""
    return "\n".join(map(_markdown, grids(comparison, metrics)))


def render_latex(comparison: Comparison, metrics: Metrics = METRICS) -> str:
    """Return the same tables for LaTeX; they need the package booktabs."""
    return "\n".join(map(_latex, grids(comparison, metrics)))


def render_csv(comparison: Comparison, metrics: Metrics = METRICS) -> str:
    """Return a line per protocol, start and part of the labels, and per published result, with all digits."""
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    columns = [f"{title} {what}" for title in metrics for what in ("mean", "deviation", "difference", "p")]
    lines.writerow(map(in_csv, ["protocol", "start", "fraction", "seeds", *columns, "source", "how sure"]))
    for row in rows(comparison, metrics):
        values = [value for title in metrics for value in _values(row.spreads[title], row.tests[title])]
        cells = [_protocol(comparison, row), row.start, row.fraction, row.seeds, *values, "measured", ""]
        lines.writerow(map(in_csv, cells))
    for recipe in comparison.recipes():
        for result in published_for(recipe):
            numbers = [word for metric in metrics.values() for word in (_published(result, metric), "", "", "")]
            source = "; ".join(filter(None, (result.source, result.differs)))
            lines.writerow(map(in_csv, [recipe, result.start, 1.0, "", *numbers, source, result.how_sure]))
    return file.getvalue()


FORMATS: dict[str, Callable[[Comparison, Metrics], str]] = {
    "markdown": render_markdown,
    "csv": render_csv,
    "latex": render_latex,
}


def grids(comparison: Comparison, metrics: Metrics = METRICS) -> list[Grid]:
    """Return the tables of a comparison, whatever they are to be written in."""
    found = rows(comparison, metrics)
    of_means = [_means(comparison, found, title, metric) for title, metric in metrics.items()]
    tested = [title for title in metrics if any(row.tests[title] for row in found)]
    return [*of_means, *(_differences(comparison, found, title) for title in tested)]


def _means(comparison: Comparison, found: Sequence[Row], title: str, metric: tuple[str, str]) -> Grid:
    lines = _lines(comparison, found)
    most = max(row.seeds for row in found)
    table = [
        [*head, *(_mean(by_fraction.get(f), title, most) for f in comparison.fractions)] for head, by_fraction in lines
    ]
    others, sources = _published_lines(comparison, metric)
    head = _head(comparison)
    if others and 1.0 not in comparison.fractions:
        head.append(share(1.0))
        table = [[*line, ""] for line in table]
    seeds = f"Mean{' ± sample standard deviation' * (most > 1)} over {_count(most, 'seed')}."
    reach = [reached(comparison, protocol, title, metric) for protocol in comparison.protocols]
    mixed = [MIXED] if len(comparison.recipes()) > 1 else []
    notes = [*mixed, seeds, *filter(None, reach), *sources]
    return Grid(f"{title} by part of the labels", head, [*table, *others], _best(comparison, lines, title), notes)


def _differences(comparison: Comparison, found: Sequence[Row], title: str) -> Grid:
    lines = [(head, by_fraction) for head, by_fraction in _lines(comparison, found) if head[-1] != comparison.baseline]
    table = [
        [*head, *(_difference(by_fraction.get(f), title) for f in comparison.fractions)] for head, by_fraction in lines
    ]
    pairs = max(test.pairs for row in found if (test := row.tests[title]))
    note = f"p: two-sided paired t-test over {_count(pairs, 'seed')} at most; not corrected for the number of tests."
    return Grid(f"{title}, difference from {comparison.baseline}", _head(comparison), table, set(), [note])


def _lines(comparison: Comparison, found: Sequence[Row]) -> list[tuple[list[str], dict[float, Row]]]:
    """Return the first cells of each line and its rows by fraction; a protocol has a cell where there are several."""
    lines: dict[tuple[str, str], dict[float, Row]] = {}
    for row in found:
        lines.setdefault((row.protocol, row.start), {})[row.fraction] = row
    return [(_first_cells(comparison, by_fraction, start), by_fraction) for (_, start), by_fraction in lines.items()]


def _first_cells(comparison: Comparison, by_fraction: dict[float, Row], start: str) -> list[str]:
    protocols = dict.fromkeys(_protocol(comparison, row) for row in by_fraction.values())
    return [" / ".join(protocols), start] if _are_several(comparison) else [start]


def _are_several(comparison: Comparison) -> bool:
    return len(comparison.recipes()) > 1 or len(comparison.protocols) > 1


def _protocol(comparison: Comparison, row: Row) -> str:
    """Return the identifier of a row's recipe, with the matrix's name for it where several names have the same."""
    return row.recipe if len(comparison.protocols) <= len(comparison.recipes()) else f"{row.protocol}: {row.recipe}"


def _head(comparison: Comparison) -> list[str]:
    first = ["protocol", "start"] if _are_several(comparison) else ["start"]
    return first + [share(fraction) for fraction in comparison.fractions]


def _best(
    comparison: Comparison, lines: Sequence[tuple[list[str], dict[float, Row]]], title: str
) -> set[tuple[int, int]]:
    """Return the places of the best means; there is no best one among several protocols, or of one start."""
    if _are_several(comparison) or len(lines) < 2:
        return set()
    best = set()
    for column, fraction in enumerate(comparison.fractions, start=1):
        spreads = [
            by_fraction[fraction].spreads[title] if fraction in by_fraction else None for _, by_fraction in lines
        ]
        means = [spread.mean if spread else float("-inf") for spread in spreads]
        best |= {(line, column) for line, mean in enumerate(means) if mean == max(means) and spreads[line]}
    return best


def _mean(row: Row | None, title: str, most: int) -> str:
    spread = row.spreads[title] if row else None
    if spread is None:
        return NOTHING
    return str(spread) if spread.runs == most else f"{spread} ({_count(spread.runs, 'seed')})"


def _difference(row: Row | None, title: str) -> str:
    test = row.tests[title] if row else None
    if test is None:
        return NOTHING
    return f"{test.difference:+.1f}{_p(test.p_value)}"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return " (p < 0.001)" if value < 0.001 else f" (p {value:.{2 if value >= 0.01 else 3}f})"


def _published_lines(comparison: Comparison, metric: tuple[str, str]) -> tuple[list[list[str]], list[str]]:
    """Return a line per published result, its number in the column of all labels, and where each was read."""
    results = [(recipe, r) for recipe in comparison.recipes() for r in published_for(recipe) if _published(r, metric)]
    sources = list(dict.fromkeys(_source(result) for _, result in results))
    empty = [""] * len([fraction for fraction in comparison.fractions if fraction < 1])
    lines = []
    for recipe, result in results:
        start = f"{result.start}, published [{sources.index(_source(result)) + 1}]"
        first = [recipe, start] if _are_several(comparison) else [start]
        lines.append([*first, *empty, str(_published(result, metric))])
    return lines, [f"[{number}] {source}" for number, source in enumerate(sources, start=1)]


def _source(result: PublishedResult) -> str:
    differs = f"; differs: {result.differs}" if result.differs else ""
    return f"{result.source} (how sure: {result.how_sure}){differs}"


def _published(result: PublishedResult, metric: tuple[str, str]) -> float | str:
    task, name = metric
    return result.metrics.get(task, {}).get(name, "")


def _values(spread: Spread | None, test: PairedTest | None) -> list[float | None]:
    of_spread = [None, None] if spread is None else [spread.mean, spread.deviation]
    return [*of_spread, *([None, None] if test is None else [test.difference, test.p_value])]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _markdown(grid: Grid) -> str:
    lines = [
        [f"**{cell}**" if (line, column) in grid.bold else in_markdown(cell) for column, cell in enumerate(cells)]
        for line, cells in enumerate(grid.lines)
    ]
    head = [*map(in_markdown, grid.head)]
    table = ["| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines]]
    notes = "  \n".join(map(in_markdown, grid.notes))
    return "\n".join([f"### {in_markdown(grid.title)}", "", *table, "", notes, ""])


def _latex(grid: Grid) -> str:
    lines = [
        [
            rf"\textbf{{{in_latex(cell)}}}" if (line, column) in grid.bold else in_latex(cell)
            for column, cell in enumerate(cells)
        ]
        for line, cells in enumerate(grid.lines)
    ]
    left = 1 + ("protocol" in grid.head)
    return "\n".join(
        [
            rf"% {visible(grid.title, '')}. Needs \usepackage{{booktabs}}.",
            rf"\begin{{tabular}}{{{'l' * left}{'r' * (len(grid.head) - left)}}}",
            r"\toprule",
            " & ".join(map(in_latex, grid.head)) + r" \\",
            r"\midrule",
            *(" & ".join(cells) + r" \\" for cells in lines),
            r"\bottomrule",
            r"\end{tabular}",
            *(f"% {visible(note, '')}" for note in grid.notes),
            "",
        ]
    )
