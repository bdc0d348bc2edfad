"""The tables of a comparison: one model, and a writer each for Markdown, LaTeX and CSV; report.html.j2 writes HTML."""

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd

from virtex_det.benchmark.comparison import Comparison
from virtex_det.benchmark.published import PublishedResult, published_for
from virtex_det.benchmark.statistics import (
    METRICS,
    ROW,
    TASKS,
    Metrics,
    reached,
    share,
    summarize,
    tidy,
)
from virtex_det.escaping import in_csv, in_latex, in_markdown, visible

MIXED = "Several protocols stand in this table. Their numbers do not compare: read the rows of one at a time."
WORDS = (
    "protocol",
    "start",
    "published start",
    "category",
    "source",
    "how sure",
)  # columns without numbers
DETAILS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
MAX_CATEGORIES = 100


class Value(NamedTuple):
    """What a cell says, the number it is sorted by (None goes last), and whether it is the best on equal labels."""

    text: str = "–"
    number: float | None = None
    is_best: bool = False


class Table(NamedTuple):
    """A table on its way to a format, with a title above it and notes below."""

    title: str
    columns: list[str]
    rows: list[list[Value]]
    notes: Sequence[str] = ()


def number(value: float, form: str) -> Value:
    """Return a number as a cell, NaN as an empty one."""
    return Value() if math.isnan(value) else Value(format(value, form), value)


def mean(cell: Any, is_best: bool = False, most: int = 0) -> Value:
    """Return a mean, its deviation, and the number of seeds where that is not ``most``, the number in most cells."""
    if math.isnan(cell.mean):
        return Value()
    deviation = "" if math.isnan(cell.deviation) else f" ± {cell.deviation:.1f}"
    seeds = f" ({count(int(cell.seeds), 'seed')})" if most not in (0, cell.seeds) else ""
    return Value(f"{cell.mean:.1f}{deviation}{seeds}", cell.mean, bool(is_best))


def result_tables(comparison: Comparison, metrics: Metrics = METRICS) -> list[Table]:
    """Return a table per metric, a row per start and a column per fraction of the labels, and their differences."""
    summary = summarize(comparison, metrics)
    means = [
        _with_published(means_table(comparison, summary.loc[title], title), comparison, metric)
        for title, metric in metrics.items()
    ]
    compared = [title for title in metrics if summary.loc[title, "pairs"].any()]
    return means + [_differences_table(comparison, summary.loc[title], title) for title in compared]


def protocol_tables(comparison: Comparison, protocol: str) -> dict[str, Any]:
    """Return the tables of one protocol: AP by start and fraction, every metric by row, what others published."""
    records = {
        cell: record for cell, record in comparison.records.items() if cell.protocol == protocol
    }
    part = dataclasses.replace(comparison, records=records)
    summary = summarize(part)
    titles = list(summary.index.unique("title"))
    several = len(part.fractions) > 1
    return {
        "name": protocol,
        "recipes": part.recipes,
        "means": [means_table(part, summary.loc[title], title) for title in titles if several],
        "details": [details_table(part, METRICS[title][0]) for title in titles],
        "published": published_table(part.recipes),
    }


def means_table(comparison: Comparison, part: pd.DataFrame, title: str) -> Table:
    """Return a metric's means over seeds, and where the others reach what the baseline has with all labels.

    Args:
        comparison: what was measured.
        part: of its summary, the rows of the metric.
        title: of the metric.
    """
    most = int(part["seeds"].max())
    rows = []
    for first, cells in _lines(comparison, part):
        rows.append(
            [
                *first,
                *(mean(cell, comparison.is_of_one_protocol and cell.best, most) for cell in cells),
            ]
        )
    notes = [MIXED] if len(comparison.recipes) > 1 else []
    notes.append(f"Mean{' ± sample standard deviation' * (most > 1)} over {count(most, 'seed')}.")
    for protocol, means in part["mean"].groupby("protocol", sort=False, observed=True):
        where = f" under {protocol}" if len(comparison.protocols) > 1 else ""
        notes.append(reached(means.droplevel("protocol"), comparison.baseline, f"{title}{where}"))
    notes += comparison.text_encoders
    return Table(
        f"{title} by part of the labels",
        _columns(comparison),
        rows,
        [note for note in notes if note],
    )


def details_table(comparison: Comparison, task: str) -> Table:
    """Return every metric of a task with a row per fraction and start, and the paired test of AP."""
    summary = summarize(comparison, {name: (task, name) for name in DETAILS})
    names = list(summary["mean"].dropna().index.unique("title"))
    tested = ["ΔAP", "p"] if comparison.baseline else []
    rows = []
    for (fraction, start), cells in summary.groupby(["fraction", "start"], observed=True):
        of_name = {cell.Index[0]: cell for cell in cells.itertuples()}
        row = [Value(share(fraction), fraction), Value(start), number(cells["seeds"].iloc[0], "d")]
        row += [
            mean(of_name[name], comparison.is_of_one_protocol and of_name[name].best)
            for name in names
        ]
        if tested:
            row += [number(of_name["AP"].difference, "+.1f"), _p_value(of_name["AP"].p)]
        rows.append(row)
    notes = [MIXED] if len(comparison.recipes) > 1 else []
    notes += comparison.text_encoders
    return Table(
        f"{TASKS[task]} metrics", ["labels", "start", "seeds", *names, *tested], rows, notes
    )


def category_tables(comparison: Comparison) -> list[Table]:
    """Return AP by category under each start, at the largest fraction of the first protocol.

    Of many categories those are kept in which the starts differ most.
    """
    protocol, fraction = comparison.protocols[0], comparison.fractions[-1]
    where = f"{share(fraction)} of the labels" + (
        f", {protocol}" if len(comparison.protocols) > 1 else ""
    )
    frame = tidy(comparison).dropna(subset="value")
    frame = frame[(frame["protocol"] == protocol) & (frame["fraction"] == fraction)]
    frame = frame[frame["metric"].str.startswith("AP-")]
    tables = []
    for task, of_task in frame.groupby("task", sort=False):
        means = (
            of_task.groupby(["metric", "start"], observed=True)["value"].agg(fmean).unstack("start")
        )
        means = means.reindex(of_task["metric"].unique())
        widest = (means.max(axis=1) - means.min(axis=1)).nlargest(MAX_CATEGORIES)
        shown = means[means.index.isin(widest.index)]
        rows = [
            [Value(name.removeprefix("AP-")), *(number(value, ".1f") for value in values)]
            for name, values in zip(shown.index, shown.to_numpy(), strict=True)
        ]
        title = f"{TASKS[task]} AP"
        if len(shown) < len(means):
            title += (
                f": the {len(shown)} categories in which the starts differ most, of {len(means)}"
            )
        notes = [f"With {where}, mean over seeds.", *comparison.text_encoders]
        tables.append(Table(title, ["category", *shown.columns], rows, notes))
    return tables


def published_table(recipes: Sequence[str]) -> Table | None:
    """Return what others published under protocols, None where there is nothing."""
    results = [result for recipe in recipes for result in published_for(recipe)]
    names = [(task, name) for task in TASKS for name in DETAILS]
    names = [
        each for each in names if any(not math.isnan(result.metric(*each)) for result in results)
    ]
    rows = []
    for result in results:
        numbers = [number(result.metric(*each), ".1f") for each in names]
        source = "; differs: ".join(filter(None, (result.source, result.differs)))
        rows.append([Value(result.start), *numbers, Value(source), Value(result.how_sure)])
    columns = [
        "published start",
        *(f"{TASKS[task]} {name}" for task, name in names),
        "source",
        "how sure",
    ]
    return Table("Published under this protocol, by others", columns, rows) if rows else None


def render_markdown(
    comparison: Comparison, metrics: Metrics = METRICS, heading: str = "###"
) -> str:
    """Return the tables of a comparison in Markdown."""
    return "\n".join(to_markdown(table, heading) for table in result_tables(comparison, metrics))


def render_latex(comparison: Comparison, metrics: Metrics = METRICS) -> str:
    """Return the same tables for LaTeX; they need the package booktabs."""
    return "\n".join(to_latex(table) for table in result_tables(comparison, metrics))


def render_csv(comparison: Comparison, metrics: Metrics = METRICS) -> str:
    """Return a line per protocol, start and fraction of the labels, and per published result, with all digits."""
    return to_csv(_csv_table(comparison, metrics))


FORMATS: dict[str, Callable[[Comparison, Metrics], str]] = {
    "markdown": render_markdown,
    "csv": render_csv,
    "latex": render_latex,
}


def to_markdown(table: Table, heading: str = "###") -> str:
    """Write a table with its title and notes in Markdown."""
    notes = "  \n".join(map(in_markdown, table.notes))
    return "\n".join(
        [f"{heading} {in_markdown(table.title)}", "", markdown_grid(table), "", notes, ""]
    )


def markdown_grid(table: Table) -> str:
    """Write a table's columns and rows in Markdown, without padding, which would change every line with one cell."""
    lines = [map(in_markdown, table.columns), ["---"] * len(table.columns)]
    for row in table.rows:
        lines.append(
            [f"**{value.text}**" if value.is_best else in_markdown(value.text) for value in row]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def to_latex(table: Table) -> str:
    """Write a table with its title and notes, as comments, in LaTeX."""
    lines = []
    for row in table.rows:
        cells = [
            rf"\textbf{{{in_latex(value.text)}}}" if value.is_best else in_latex(value.text)
            for value in row
        ]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join(
        [
            rf"% {visible(table.title, '')}. Needs \usepackage{{booktabs}}.",
            rf"\begin{{tabular}}{{{''.join('l' if column in WORDS else 'r' for column in table.columns)}}}",
            r"\toprule",
            " & ".join(map(in_latex, table.columns)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            *(f"% {visible(note, '')}" for note in table.notes),
            "",
        ]
    )


def to_csv(table: Table) -> str:
    """Write a table's columns and rows as CSV, numbers with all digits."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(in_csv, table.columns))
    for row in table.rows:
        texts = ["" if value == Value() else in_csv(value.text) for value in row]
        writer.writerow(
            text if value.number is None else value.number
            for text, value in zip(texts, row, strict=True)
        )
    return file.getvalue()


def count(number: int, noun: str) -> str:
    """Return a number of things in words.

    Example:
        >>> count(1, "seed"), count(3, "seed")
        ('1 seed', '3 seeds')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _csv_table(comparison: Comparison, metrics: Metrics) -> Table:
    whats = ["mean", "deviation", "difference", "p"]
    columns = ["protocol", "start", "fraction", "seeds"]
    columns += [f"{title} {what}" for title in metrics for what in whats] + ["source", "how sure"]
    rows = []
    groups = summarize(comparison, metrics).groupby(ROW[1:], sort=False, observed=True)
    for (protocol, start, fraction), cells in groups:
        values = [
            Value(_protocol(comparison, protocol, cells)),
            Value(start),
            number(fraction, "g"),
        ]
        values += [
            number(value, "g")
            for value in (cells["seeds"].iloc[0], *cells[whats].to_numpy().ravel())
        ]
        rows.append([*values, Value("measured"), Value("")])
    for recipe in comparison.recipes:
        for result in published_for(recipe):
            values = [Value(recipe), Value(result.start), number(1.0, "g"), Value()]
            for task, name in metrics.values():
                values += [number(result.metric(task, name), "g"), Value(), Value(), Value()]
            source = "; ".join(filter(None, (result.source, result.differs)))
            rows.append([*values, Value(source), Value(result.how_sure)])
    return Table("", columns, rows)


def _with_published(table: Table, comparison: Comparison, metric: tuple[str, str]) -> Table:
    """Add a row per published result, its number in the column of all labels, and notes on where each was read."""
    rows, sources = [], []
    for recipe in comparison.recipes:
        for result in published_for(recipe):
            if math.isnan(value := result.metric(*metric)):
                continue
            if (source := _source(result)) not in sources:
                sources.append(source)
            start = Value(f"{result.start}, published [{sources.index(source) + 1}]")
            first = [start] if comparison.is_of_one_protocol else [Value(recipe), start]
            few = [Value("") for fraction in comparison.fractions if fraction < 1]
            rows.append([*first, *few, number(value, "")])
    ours, columns = table.rows, table.columns
    if rows and 1.0 not in comparison.fractions:
        ours, columns = [[*row, Value("")] for row in ours], [*columns, share(1.0)]
    notes = [f"[{place}] {source}" for place, source in enumerate(sources, start=1)]
    return Table(table.title, columns, ours + rows, [*table.notes, *notes])


def _differences_table(comparison: Comparison, part: pd.DataFrame, title: str) -> Table:
    others = part[part.index.get_level_values("start") != comparison.baseline]
    rows = [[*first, *map(_difference, cells)] for first, cells in _lines(comparison, others)]
    pairs = count(int(part["pairs"].max()), "seed")
    test = (
        f"p: two-sided paired t-test over {pairs} at most; not corrected for the number of tests."
    )
    return Table(
        f"{title}, difference from {comparison.baseline}",
        _columns(comparison),
        rows,
        [test, *comparison.text_encoders],
    )


def _lines(
    comparison: Comparison, part: pd.DataFrame
) -> Iterator[tuple[list[Value], Iterator[Any]]]:
    """Yield the first cells of each line and its rows of the summary by fraction; NaN where it was not run."""
    for (protocol, start), line in part.groupby(["protocol", "start"], sort=False, observed=True):
        first = (
            [] if comparison.is_of_one_protocol else [Value(_protocol(comparison, protocol, line))]
        )
        by_fraction = line.droplevel(["protocol", "start"]).reindex(comparison.fractions)
        yield [*first, Value(start)], by_fraction.itertuples()


def _columns(comparison: Comparison) -> list[str]:
    first = ["start"] if comparison.is_of_one_protocol else ["protocol", "start"]
    return first + [share(fraction) for fraction in comparison.fractions]


def _protocol(comparison: Comparison, protocol: str, line: pd.DataFrame) -> str:
    """Return the recipe of rows of the summary, with the matrix's name for it where several names have the same."""
    recipes = " / ".join(line["recipe"].unique())
    return (
        recipes
        if len(comparison.protocols) <= len(comparison.recipes)
        else f"{protocol}: {recipes}"
    )


def _difference(cell: Any) -> Value:
    if math.isnan(cell.difference):
        return Value()
    digits = 2 if cell.p >= 0.01 else 3
    p = (
        " (p < 0.001)"
        if cell.p < 0.001
        else ""
        if math.isnan(cell.p)
        else f" (p {cell.p:.{digits}f})"
    )
    return Value(f"{cell.difference:+.1f}{p}", cell.difference)


def _p_value(p: float) -> Value:
    return Value("< 0.0001", p) if p < 1e-4 else number(p, ".2g")


def _source(result: PublishedResult) -> str:
    differs = f"; differs: {result.differs}" if result.differs else ""
    return f"{result.source} (how sure: {result.how_sure}){differs}"
