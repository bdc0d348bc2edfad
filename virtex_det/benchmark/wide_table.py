"""One table over protocols: starts in rows; protocols, metrics and parts of labels in columns."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from virtex_det.benchmark.comparison import Comparison, share
from virtex_det.benchmark.published import PublishedResult
from virtex_det.benchmark.statistics import MAIN, find_metrics, summarize
from virtex_det.benchmark.tables import (
    Table,
    Value,
    mean,
    number,
    numbered,
    source_of,
    title_of,
    to_latex,
    to_markdown,
    usual_number,
    what_means_are,
    without_ties,
)
from virtex_det.escaping import in_csv, in_markdown, visible

TITLE = "All protocols"
RARE = "segm/APr"  # LVIS's rare categories, which tables of that data set show beside AP


class Column(NamedTuple):
    """What the numbers of a column are."""

    protocol: str
    metric: str
    fraction: float

    @property
    def title(self) -> str:
        """The heading where there is one level of headings."""
        return f"{title_of(self.metric)}, {self.protocol}, {share(self.fraction)}"


class _Row(NamedTuple):
    """What others published of a start, under one protocol or more."""

    start: str
    paper: str
    values: dict[Column, float]
    sources: list[str]


def wide_metrics(comparison: Comparison, names: Sequence[str] = ()) -> list[str]:
    """Return the names of the metrics to show.

    Args:
        comparison: whose records have them.
        names: by default box and mask AP, AP of LVIS's rare categories, and mAP of SVMs, where they
            were measured.

    Raises:
        UserError: no record has a metric of a name.
    """
    known = [metric for metric in (*MAIN[:2], RARE, *MAIN[2:]) if metric in comparison.metrics]
    return find_metrics(comparison, names or known)


def wide_table(comparison: Comparison, metrics: Sequence[str]) -> Table | None:
    """Return the means of all protocols in one table, with published results below ours.

    Args:
        comparison: what was measured.
        metrics: their names, as of ``wide_metrics``.

    Returns:
        None without metrics.
    """
    if not metrics:
        return None
    summary = summarize(comparison, metrics).dropna(subset="mean")
    columns = _columns(comparison, summary, metrics)
    usual = usual_number(summary["seeds"])
    mixed = [p for p in comparison.protocols if len(comparison.of([p]).recipes) > 1]
    rows = []
    for start in comparison.starts:
        cells = [_cell(summary, start, column) for column in columns]
        values = [
            Value()
            if cell is None
            else mean(cell, cell.best and column.protocol not in mixed, usual)
            for column, cell in zip(columns, cells, strict=True)
        ]
        rows.append([Value(start), *values])
    sources: list[str] = []
    for row in _published(comparison, columns):
        sources += [source for source in row.sources if source not in sources]
        places = ", ".join(str(sources.index(source) + 1) for source in row.sources)
        values = [number(row.values.get(column, math.nan), "") for column in columns]
        rows.append([Value(f"{row.start}, published [{places}]"), *values])
    notes = [
        f"{what_means_are(summary['seeds']).capitalize()}. Numbers compare within a column only: "
        "each is of another protocol, metric or part of the labels."
    ]
    if mixed:
        notes.append(
            f"Several recipes stand under {', '.join(mixed)}: their numbers do not compare."
        )
    table = Table(
        TITLE,
        ["start", *(column.title for column in columns)],
        rows,
        notes + comparison.text_encoders,
        numbered(sources),
        [
            ("", "", "start"),
            *((c.protocol, title_of(c.metric), share(c.fraction)) for c in columns),
        ],
    )
    return without_ties(table)


def wide_markdown(comparison: Comparison, metrics: Sequence[str]) -> str:
    """Return the table in Markdown, after what is missing of the matrix."""
    gaps = [f"{in_markdown(comparison.gaps)}\n"] if comparison.missing else []
    table = wide_table(comparison, metrics)
    return "\n".join([*gaps, to_markdown(table) if table else ""])


def wide_latex(comparison: Comparison, metrics: Sequence[str]) -> str:
    """Return the table for LaTeX; it needs the package booktabs."""
    gaps = [f"% {visible(comparison.gaps, '')}\n"] if comparison.missing else []
    table = wide_table(comparison, metrics)
    return "\n".join([*gaps, to_latex(table) if table else ""])


def wide_csv(comparison: Comparison, metrics: Sequence[str]) -> str:
    """Return a line per start, and per published start with its sources, with all digits."""
    summary = summarize(comparison, metrics).dropna(subset="mean")
    columns = _columns(comparison, summary, metrics)
    kinds = ("mean", "deviation", "seeds")
    head = ["start", *(f"{c.title} {kind}" for c in columns for kind in kinds), "source"]
    rows: list[list[Any]] = []
    for start in comparison.starts:
        cells = [_cell(summary, start, column) for column in columns]
        values = [getattr(cell, kind, None) for cell in cells for kind in kinds]
        rows.append([start, *values, "measured"])
    for row in _published(comparison, columns):
        values = []
        for column in columns:
            values += [row.values.get(column), None, None]
        rows.append([row.start, *values, " | ".join(row.sources)])
    safe = [list(map(in_csv, row)) for row in [head, *rows]]
    table = pd.DataFrame(safe[1:], columns=safe[0], dtype=object)
    return table.to_csv(index=False, lineterminator="\n")


WIDE_FORMATS: Mapping[str, Callable[[Comparison, Sequence[str]], str]] = {
    "markdown": wide_markdown,
    "csv": wide_csv,
    "latex": wide_latex,
}


def _columns(comparison: Comparison, summary: pd.DataFrame, metrics: Sequence[str]) -> list[Column]:
    measured = {
        Column(protocol, metric, fraction) for metric, protocol, _, fraction in summary.index
    }
    order = [
        Column(protocol, metric, fraction)
        for protocol in comparison.protocols
        for metric in metrics
        for fraction in comparison.fractions
    ]
    return [column for column in order if column in measured]


def _cell(summary: pd.DataFrame, start: str, column: Column) -> Any:
    """Return the row of the summary of a start and column, None if it was not measured."""
    key = (column.metric, column.protocol, start, column.fraction)
    found = summary[summary.index.isin([key])]
    return next(found.itertuples(), None)


def _published(comparison: Comparison, columns: Sequence[Column]) -> list[_Row]:
    """Return what others published with all labels; one row for a start and paper if it can be."""
    rows: list[_Row] = []
    for protocol in comparison.protocols:
        own = [column for column in columns if column.protocol == protocol and column.fraction == 1]
        for recipe in comparison.of([protocol]).recipes:
            for result in comparison.published_for(recipe):
                values = {column: result.metric(column.metric) for column in own}
                values = {c: value for c, value in values.items() if not math.isnan(value)}
                if values:
                    _add(rows, result, values)
    return rows


def _add(rows: list[_Row], result: PublishedResult, values: dict[Column, float]) -> None:
    source = source_of(result)
    for row in rows:
        is_same = (row.start, row.paper) == (result.start, result.paper)
        if is_same and not row.values.keys() & values.keys():
            row.values.update(values)
            row.sources.extend([source] if source not in row.sources else [])
            return
    rows.append(_Row(result.start, result.paper, values, [source]))
