"""The tables of a comparison, and their writers for Markdown, LaTeX and CSV.

``report.html.j2`` writes the same tables as HTML.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd

from virtex_det.benchmark.comparison import Comparison, share
from virtex_det.benchmark.published import PublishedResult
from virtex_det.benchmark.statistics import (
    AP,
    DETAILS,
    TASKS,
    Overview,
    compare_pairs,
    detectable_difference,
    enough_labels,
    overview,
)
from virtex_det.escaping import in_csv, in_latex, in_markdown, visible

MIXED = (
    "Several protocols stand in this table. Their numbers do not compare: read the rows of one at "
    "a time."
)
OVERVIEW = "What the features are worth"
# Columns without numbers.
WORDS = ("protocol", "start", "published start", "category", "paper", "source", "how sure")
MAX_CATEGORIES = 100
_TITLES = {**TASKS, "svm": "SVM"}
_PRINTED = re.compile(r"\d+(\.\d+)?")  # the mean at the beginning of a cell
_MINUS = re.compile(r"(?<![\w.])-(?=\d)")


class Value(NamedTuple):
    """A cell of a table.

    Attributes:
        text: what it shows.
        number: what it is sorted by; None goes last.
        is_best: whether no start has more with the same labels.
    """

    text: str = "–"
    number: float | None = None
    is_best: bool = False


class Table(NamedTuple):
    """A table before it is written in a format, with a title above it and notes below.

    Attributes:
        title: in LaTeX the caption.
        columns: their headings.
        rows: a cell per column.
        notes: sentences below it; in LaTeX comments.
        sources: of published numbers, below the notes; in LaTeX a part of the caption.
        levels: headings of the columns from the widest to their own, for formats that can join
            equal ones; empty if they have one level.
    """

    title: str
    columns: list[str]
    rows: list[list[Value]]
    notes: Sequence[str] = ()
    sources: Sequence[str] = ()
    levels: Sequence[Sequence[str]] = ()


def title_of(metric: str) -> str:
    """Return a metric's name for readers.

    Example:
        >>> title_of("bbox/AP50")
        'Box AP50'
    """
    task, _, name = metric.partition("/")
    return f"{_TITLES.get(task, task)} {name}"


def number(value: float, form: str) -> Value:
    """Return a number as a cell, NaN as an empty one."""
    return Value() if math.isnan(value) else Value(format(value, form), value)


def signed(difference: float) -> str:
    """Return a difference with its sign and one digit; what rounds to zero has no sign."""
    text = f"{difference:+.1f}"
    return text if float(text) else "0.0"


def p_value(p: float) -> Value:
    """Return a p-value as a cell, NaN as an empty one."""
    return Value("< 0.0001", p) if p < 1e-4 else number(p, ".2g")


def mean(cell: Any, is_best: bool = False, usual: int = 0) -> Value:
    """Return the mean and deviation of a row of the summary as a cell.

    Args:
        cell: the row.
        is_best: whether it is the best on equal labels.
        usual: seeds of most cells; one with another number says so. 0 for no such note.
    """
    if math.isnan(cell.mean):
        return Value()
    deviation = "" if math.isnan(cell.deviation) else f" ± {cell.deviation:.1f}"
    seeds = f" ({count(cell.seeds, 'seed')})" if usual not in (0, cell.seeds) else ""
    return Value(f"{cell.mean:.1f}{deviation}{seeds}", cell.mean, bool(is_best))


def result_tables(comparison: Comparison, summary: pd.DataFrame) -> list[Table]:
    """Return the means of each metric, with published results, and its differences and pairs.

    Args:
        comparison: what was measured.
        summary: of ``summarize``, with the metrics to show.

    Returns:
        Tables with a row per start and a column per fraction of the labels. Each of several
        protocols has its own; then come those of ``overview_tables``, and protocols that have runs
        with all labels alone are only there, beside protocols with several fractions.
    """
    if len(comparison.protocols) == 1:
        return _tables_of_protocol(comparison, summary)
    metrics = list(summary.index.unique("metric"))
    last = overview_tables(comparison, overview(comparison, metrics))
    tables, full = [], comparison.curves.protocols
    for protocol in comparison.protocols:
        part = comparison.of([protocol])
        if last and part.fractions == [1.0] and protocol not in full:
            continue
        rows = summary[summary.index.isin([protocol], "protocol")]
        rows = rows[rows.index.isin(part.metrics, "metric")]
        own = _tables_of_protocol(part, rows)
        tables += [table._replace(title=f"{table.title}, {protocol}") for table in own]
    return tables + last


def overview_tables(comparison: Comparison, found: Overview | None) -> list[Table]:
    """Return the main metric of each protocol with all labels, and its differences and pairs.

    Args:
        comparison: what was measured.
        found: of ``overview``.

    Returns:
        Tables with a row per start and a column per protocol; none for a single protocol.
    """
    if found is None:
        return []
    titles = {name: f"{title_of(metric)}, {name}" for name, metric in found.metrics.items()}
    columns = ["start", *titles.values()]
    text_encoders = comparison.of(titles).text_encoders
    usual = usual_number(found.summary["seeds"])
    notes = [
        f"With all labels; {what_means_are(found.summary['seeds'])}. Each column is of another "
        "protocol: compare the starts in it."
    ]
    cells = _by_protocol(found.summary, titles)
    rows = [[Value(start), *(mean(c, c.best, usual) for c in line)] for start, line in cells]
    tables = [Table(OVERVIEW, columns, rows, notes + text_encoders)]
    others = found.summary[~found.summary.index.isin([comparison.baseline], "start")]
    compared = {"of paired starts": found.pairs}
    if comparison.baseline:
        compared = {f"from {comparison.baseline}": others} | compared
    for what, part in compared.items():
        if _has_pairs(part):
            usual = usual_number(part["pairs"][part["pairs"] > 1])
            lines = _by_protocol(part, titles)
            rows = [[Value(s), *(_difference(c, usual) for c in line)] for s, line in lines]
            notes = _notes_on_tests(part, columns=titles) + text_encoders
            tables.append(Table(f"{OVERVIEW}, difference {what}", columns, rows, notes))
    return tables


def _by_protocol(part: pd.DataFrame, protocols: Iterable[str]) -> Iterator[tuple[str, list[Any]]]:
    """Yield each start with its rows by protocol; one that was not run has a row of NaN."""
    for start, line in part.groupby("start", sort=False, observed=True):
        of_protocol = line.droplevel(["metric", "start", "fraction"]).reindex(list(protocols))
        yield str(start), list(of_protocol.itertuples())


def _tables_of_protocol(comparison: Comparison, summary: pd.DataFrame) -> list[Table]:
    metrics = summary.index.unique("metric")
    means, differences = [], []
    for metric in metrics:
        means.append(_with_published(means_table(comparison, summary, metric), comparison, metric))
        part = summary.loc[metric]
        if _has_pairs(part):
            others = part[part.index.get_level_values("start") != comparison.baseline]
            title = f"{title_of(metric)}, difference from {comparison.baseline}"
            differences.append(_tests_table(comparison, others, title))
    return means + differences + _pair_tables(comparison, compare_pairs(comparison, metrics))


class ProtocolTables(NamedTuple):
    """The tables of one protocol.

    Attributes:
        name: of the protocol in the matrix.
        recipes: its ids in the records.
        means: AP by start and fraction, if there are several fractions.
        pairs: differences of AP of the starts that the matrix pairs.
        details: all metrics of boxes, and of masks.
        published: results of others; None if there are none.
    """

    name: str
    recipes: list[str]
    means: list[Table]
    pairs: list[Table]
    details: list[Table]
    published: Table | None


def protocol_tables(
    comparison: Comparison, summary: pd.DataFrame, paired: pd.DataFrame
) -> list[ProtocolTables]:
    """Return the tables of each protocol that measured box or mask AP.

    Args:
        comparison: what was measured.
        summary: of ``summarize``, with all metrics of DETAILS.
        paired: of ``compare_pairs``, with box and mask AP.
    """
    found = []
    for protocol in comparison.protocols:
        part = comparison.of([protocol])
        rows = summary.xs(protocol, level="protocol", drop_level=False)
        metrics = [metric for metric in AP if metric in part.metrics]
        if not metrics:
            continue
        means = [means_table(part, rows, metric) for metric in metrics if len(part.fractions) > 1]
        details = [details_table(part, rows, metric.partition("/")[0]) for metric in metrics]
        own = paired.index.isin(metrics, "metric") & paired.index.isin([protocol], "protocol")
        pairs, published = _pair_tables(part, paired[own]), published_table(part)
        found.append(ProtocolTables(protocol, part.recipes, means, pairs, details, published))
    return found


def means_table(comparison: Comparison, summary: pd.DataFrame, metric: str) -> Table:
    """Return a metric's means over seeds, and how few labels reach the baseline with all of them.

    Arguments as of ``result_tables``.
    """
    part, title = summary.loc[metric], title_of(metric)
    usual = usual_number(part["seeds"])
    rows = []
    for first, cells in _lines(comparison, part):
        bold = len(comparison.recipes) == 1
        rows.append([*first, *(mean(cell, bold and cell.best, usual) for cell in cells)])
    notes = [MIXED] if len(comparison.recipes) > 1 else []
    notes.append(f"{what_means_are(part['seeds']).capitalize()}.")
    has_seeds = part.groupby("start", observed=True)["seeds"].transform("min") > 1
    means = part["mean"][has_seeds].droplevel("protocol")
    notes.append(reached(means, comparison.baseline, title))
    notes = [note for note in notes if note] + comparison.text_encoders
    return Table(f"{title} by part of the labels", _columns(comparison), rows, notes)


def reached(means: pd.Series, baseline: str, title: str) -> str:
    """Return a sentence on how few labels each start needs to reach the baseline with all labels.

    Args:
        means: of one metric under one protocol, by start and fraction.
        baseline: the start that the others are compared with.
        title: of the metric, followed by the protocol if there are several.

    Returns:
        "" if the baseline's mean with all labels is 0 or unknown.
    """
    goal = means.get((baseline, 1.0), math.nan)
    enough = []
    for start, curve in means.groupby("start", sort=False, observed=True):
        if start != baseline:
            enough.append(f"{start}: {enough_labels(curve.droplevel('start'), goal)}")
    if not goal > 0 or not enough:
        return ""
    return (
        f"With all labels, {baseline} has {goal:.1f} {title}. Fraction of the labels at which "
        f"each other start reaches it, interpolated: {'; '.join(enough)}."
    )


def details_table(comparison: Comparison, summary: pd.DataFrame, task: str) -> Table:
    """Return all metrics of a task with a row per fraction and start, and the paired test of AP.

    Args:
        comparison: what was measured.
        summary: of ``summarize``, with all metrics of DETAILS.
        task: "bbox" or "segm".
    """
    defined = summary["mean"].dropna().index.unique("metric")
    names = [name for name in DETAILS if f"{task}/{name}" in defined]
    tested = ["ΔAP", "p"] if comparison.baseline else []
    rows = []
    for (fraction, start), cells in summary.groupby(["fraction", "start"], observed=True):
        of_metric = {cell.Index[0]: cell for cell in cells.itertuples()}
        ap = of_metric[f"{task}/AP"]
        row = [Value(share(fraction), fraction), Value(start), number(ap.seeds, "d")]
        for name in names:
            cell = of_metric[f"{task}/{name}"]
            row.append(mean(cell, len(comparison.recipes) == 1 and cell.best))
        if tested:
            difference = Value()
            if ap.pairs > 1:
                difference = Value(signed(ap.difference), ap.difference)
            row += [difference, p_value(ap.p_holm)]
        rows.append(row)
    notes = [MIXED] if len(comparison.recipes) > 1 else []
    if tested:
        tests = summary.loc[f"{task}/AP"] if f"{task}/AP" in defined else summary[:0]
        notes += _notes_on_tests(tests, "of AP")
    notes += comparison.text_encoders
    columns = ["labels", "start", "seeds", *names, *tested]
    return Table(f"{TASKS[task]} metrics", columns, rows, notes)


def category_tables(comparison: Comparison) -> list[Table]:
    """Return AP by category under each start, at the largest fraction of the first protocol.

    Of many categories, those in which the starts differ most are kept.
    """
    protocol, fraction = comparison.protocols[0], comparison.fractions[-1]
    where = f", {protocol}" if len(comparison.protocols) > 1 else ""
    notes = [f"With {share(fraction)} of the labels{where}, mean over seeds."]
    notes += comparison.text_encoders
    frame = comparison.frame.dropna(subset="value")
    frame = frame[(frame["protocol"] == protocol) & (frame["fraction"] == fraction)]
    tables = []
    for task in TASKS:
        of_task = frame[frame["metric"].str.startswith(f"{task}/AP-")]
        if of_task.empty:
            continue
        groups = of_task.groupby(["metric", "start"], observed=True)["value"]
        means = groups.agg(fmean).unstack("start").reindex(of_task["metric"].unique())
        widest = (means.max(axis=1) - means.min(axis=1)).nlargest(MAX_CATEGORIES)
        shown = means[means.index.isin(widest.index)]
        rows = []
        for metric, *values in shown.itertuples(name=None):
            name = metric.removeprefix(f"{task}/AP-")
            rows.append([Value(name), *(number(value, ".1f") for value in values)])
        title = f"{TASKS[task]} AP"
        if len(shown) < len(means):
            what = f"the {len(shown)} categories in which the starts differ most"
            title += f": {what}, of {len(means)}"
        tables.append(Table(title, ["category", *shown.columns], rows, notes))
    return tables


def published_table(comparison: Comparison) -> Table | None:
    """Return what others published under the protocols of records, None if there is nothing."""
    results = [r for recipe in comparison.recipes for r in comparison.published_for(recipe)]
    metrics = []
    for metric in (f"{task}/{name}" for task in TASKS for name in DETAILS):
        if any(not math.isnan(result.metric(metric)) for result in results):
            metrics.append(metric)
    rows = []
    for result in results:
        numbers = [number(result.metric(metric), ".1f") for metric in metrics]
        source = "; differs: ".join(filter(None, (result.place, result.differs)))
        words = [result.paper, source, result.how_sure]
        rows.append([Value(result.start), *numbers, *map(Value, words)])
    columns = ["published start", *map(title_of, metrics), "paper", "source", "how sure"]
    return Table("Published under this protocol, by others", columns, rows) if rows else None


def render_markdown(comparison: Comparison, summary: pd.DataFrame, heading: str = "###") -> str:
    """Return the tables of a comparison in Markdown, after what is missing of it."""
    texts = [f"{in_markdown(comparison.gaps)}\n"] if comparison.missing else []
    texts += [to_markdown(table, heading) for table in result_tables(comparison, summary)]
    return "\n".join(texts)


def render_latex(comparison: Comparison, summary: pd.DataFrame) -> str:
    """Return the same tables for LaTeX; they need the package booktabs."""
    gaps = [f"% {visible(comparison.gaps, '')}\n"] if comparison.missing else []
    return "\n".join([*gaps, *map(to_latex, result_tables(comparison, summary))])


def render_csv(comparison: Comparison, summary: pd.DataFrame) -> str:
    """Return a line per protocol, start and fraction, and per published result, with all digits."""
    metrics = summary.index.unique("metric")
    numbers = ["mean", "deviation", "difference", "low", "high", "p", "p_holm"]
    columns = ["protocol", "start", "fraction", "seeds"]
    columns += [f"{title_of(metric)} {what}" for metric in metrics for what in numbers]
    columns += ["source", "how sure"]
    paired = compare_pairs(comparison, metrics)
    paired = paired.assign(seeds=paired["pairs"], mean=None, deviation=None)
    rows = []
    for source, table in {"measured": summary, "measured, as a pair": paired}.items():
        groups = table.groupby(["protocol", "start", "fraction"], sort=False, observed=True)
        for (protocol, start, fraction), cells in groups:
            row = [_recipe(comparison, protocol, cells), start, fraction, cells["seeds"].iloc[0]]
            rows.append([*row, *cells[numbers].to_numpy().ravel(), source, ""])
    for recipe in comparison.recipes:
        for result in comparison.published_for(recipe):
            row = [recipe, result.start, 1.0, None]
            for metric in metrics:
                row += [result.metric(metric), *[None] * (len(numbers) - 1)]
            source = "; ".join(filter(None, (result.paper, result.place, result.differs)))
            rows.append([*row, source, result.how_sure])
    safe = [list(map(in_csv, row)) for row in [columns, *rows]]
    table = pd.DataFrame(safe[1:], columns=safe[0], dtype=object)
    return table.to_csv(index=False, lineterminator="\n")


FORMATS: dict[str, Callable[[Comparison, pd.DataFrame], str]] = {
    "markdown": render_markdown,
    "csv": render_csv,
    "latex": render_latex,
}


def markdown_grid(table: Table) -> str:
    """Return a table's columns and rows in Markdown.

    Cells are not padded: with padding, one changed cell would change every line.
    """
    lines = [map(in_markdown, table.columns), ["---"] * len(table.columns)]
    for row in table.rows:
        lines.append([f"**{v.text}**" if v.is_best else in_markdown(v.text) for v in row])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def count(number: float, noun: str) -> str:
    """Return a number of things in words.

    Example:
        >>> count(1, "seed"), count(3, "seed")
        ('1 seed', '3 seeds')
    """
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def to_markdown(table: Table, heading: str = "###") -> str:
    """Return a table in Markdown, with its title above it and its notes and sources below."""
    notes = "  \n".join(map(in_markdown, [*table.notes, *table.sources]))
    title = f"{heading} {in_markdown(table.title)}"
    return "\n".join([title, "", markdown_grid(table), "", notes, ""])


def without_ties(table: Table) -> Table:
    """Return a table in which a best is marked only if it prints higher than the other starts."""
    printed = [
        [_PRINTED.match(value.text) for value in column] for column in zip(*table.rows, strict=True)
    ]
    rows = []
    for row in table.rows:
        cells = []
        for value, column in zip(row, printed, strict=True):
            own = _PRINTED.match(value.text)
            equal = [other for other in column if own and other and own[0] == other[0]]
            cells.append(value._replace(is_best=value.is_best and len(equal) == 1))
        rows.append(cells)
    return table._replace(rows=rows)


def to_latex(table: Table) -> str:
    """Return a table in LaTeX, with a caption and a label, and its notes as comments.

    A number has a true minus sign. The best is bold if it prints higher.
    """
    columns = "".join("l" if column in WORDS else "r" for column in table.columns)
    label = re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-")
    caption = in_latex(" ".join(f"{text}." for text in [table.title, *table.sources]))
    lines = [
        r"\begin{table} % needs \usepackage{booktabs}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *_latex_headings(table),
        r"\midrule",
    ]
    for row in without_ties(table).rows:
        cells = []
        for value in row:
            text = in_latex(value.text)
            if value.number is not None:
                text = _MINUS.sub("$-$", text)
            cells.append(rf"\textbf{{{text}}}" if value.is_best else text)
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    lines += [f"% {visible(note, '')}" for note in table.notes]
    return "\n".join([*lines, ""])


def _latex_headings(table: Table) -> list[str]:
    """Return the lines of the headings; equal neighbours are joined, but in the last line."""
    if not table.levels:
        return [" & ".join(map(in_latex, table.columns)) + r" \\"]
    lines, last = [], len(table.levels[0]) - 1
    for depth in range(last):
        cells, rules, place = [], [], 1
        # Equal down to this level: below two protocols, one metric has two headings.
        for levels, group in groupby(level[: depth + 1] for level in table.levels):
            width, text = len(list(group)), in_latex(levels[depth])
            cells.append(rf"\multicolumn{{{width}}}{{c}}{{{text}}}")
            if text:
                rules.append(rf"\cmidrule(lr){{{place}-{place + width - 1}}}")
            place += width
        lines += [" & ".join(cells) + r" \\", " ".join(rules)]
    lines.append(" & ".join(in_latex(level[last]) for level in table.levels) + r" \\")
    return lines


def _with_published(table: Table, comparison: Comparison, metric: str) -> Table:
    """Add a row per published result, in the column of all labels, and a note on each source."""
    rows, sources = [], []
    for recipe in comparison.recipes:
        for result in comparison.published_for(recipe):
            if math.isnan(value := result.metric(metric)):
                continue
            if (source := source_of(result)) not in sources:
                sources.append(source)
            start = Value(f"{result.start}, published [{sources.index(source) + 1}]")
            first = [start] if len(comparison.recipes) == 1 else [Value(recipe), start]
            few = [Value("") for fraction in comparison.fractions if fraction < 1]
            rows.append([*first, *few, number(value, "")])
    ours, columns = table.rows, table.columns
    if rows and 1.0 not in comparison.fractions:
        ours, columns = [[*row, Value("")] for row in ours], [*columns, share(1.0)]
    return Table(table.title, columns, ours + rows, table.notes, numbered(sources))


def numbered(sources: Iterable[str]) -> list[str]:
    """Return sources with the numbers that cells refer to them by."""
    return [f"[{number}] {source}" for number, source in enumerate(sources, start=1)]


def source_of(result: PublishedResult) -> str:
    """Return where a published result was read, how sure that is, and in what it differs."""
    differs = f"; differs: {result.differs}" if result.differs else ""
    return f"{result.paper}; {result.place} (how sure: {result.how_sure}){differs}"


def _pair_tables(comparison: Comparison, paired: pd.DataFrame) -> list[Table]:
    """Return a table per metric of ``compare_pairs``, or of some of its rows."""
    tables = []
    for metric in paired.index.unique("metric"):
        part, title = paired.loc[metric], f"{title_of(metric)}, difference of paired starts"
        if _has_pairs(part):
            tables.append(_tests_table(comparison, part, title))
    return tables


def _has_pairs(tests: pd.DataFrame) -> bool:
    """Return whether there is a difference over several seeds; that of one seed is not shown."""
    return bool((tests["pairs"] > 1).any())


def usual_number(numbers: pd.Series) -> int:
    """Return the most frequent number; the largest of several that are as frequent."""
    return int(numbers.mode().max())


def what_means_are(seeds: pd.Series) -> str:
    """Return what cells of means show, from the number of seeds of each."""
    spread = " ± sample standard deviation" if seeds.max() > 1 else ""
    others = ", or as many as a cell says" if seeds.nunique() > 1 else ""
    return f"mean{spread} over {count(usual_number(seeds), 'seed')}{others}"


def _tests_table(comparison: Comparison, part: pd.DataFrame, title: str) -> Table:
    usual = usual_number(part["pairs"][part["pairs"] > 1])
    rows = []
    for first, cells in _lines(comparison, part):
        rows.append([*first, *(_difference(cell, usual) for cell in cells)])
    notes = [*_notes_on_tests(part), *comparison.text_encoders]
    return Table(title, _columns(comparison), rows, notes)


def _notes_on_tests(
    part: pd.DataFrame, what: str = "", columns: Mapping[str, str] | None = None
) -> list[str]:
    """Return notes on paired tests: how they were made, and which difference they would show.

    Args:
        part: rows of the summary.
        what: is tested, if the table has other numbers, too.
        columns: titles by protocol, if the columns are of several, each with its own differences.
    """
    if not part["p"].notna().any():
        return ["A difference needs two seeds, and a test differences that vary between seeds."]
    tests = int(part["tests"].max())
    most = count(part["pairs"].max(), "seed")
    of_what = f" {what}" if what else ""
    notes = [
        f"Two-sided paired t-tests{of_what} over {most} at most; p is corrected for the "
        f"{count(tests, 'test')} of this table (Holm)."
    ]
    if not what:
        notes[0] += " In parentheses: the 95 % interval of each difference by itself."
    if columns:
        of_column = {title: part[part.index.isin([p], "protocol")] for p, title in columns.items()}
        least = {t: detectable_difference(rows, tests) for t, rows in of_column.items()}
        known = {title: value for title, value in least.items() if not math.isnan(value)}
        shown = "; ".join(f"{value:.1f} ({title})" for title, value in known.items())
    else:
        shown = f"{detectable_difference(part, tests):.1f}"
    notes.append(
        f"A true difference of {shown} would be significant (p < 0.05) with a probability of "
        "80 %; a smaller one mostly would not be seen."
    )
    return notes


def _lines(
    comparison: Comparison, part: pd.DataFrame
) -> Iterator[tuple[list[Value], Iterator[Any]]]:
    """Yield the first cells of each line, and its rows of the summary by fraction.

    A fraction that was not run has a row of NaN.
    """
    for (protocol, start), line in part.groupby(["protocol", "start"], sort=False, observed=True):
        first = [Value(start)]
        if len(comparison.recipes) > 1:
            first = [Value(_recipe(comparison, protocol, line)), *first]
        by_fraction = line.droplevel(["protocol", "start"]).reindex(comparison.fractions)
        yield first, by_fraction.itertuples()


def _columns(comparison: Comparison) -> list[str]:
    first = ["start"] if len(comparison.recipes) == 1 else ["protocol", "start"]
    return first + [share(fraction) for fraction in comparison.fractions]


def _recipe(comparison: Comparison, protocol: str, line: pd.DataFrame) -> str:
    """Return the protocol id of rows; with the matrix's name if several names have the same id."""
    recipes = " / ".join(line["recipe"].unique())
    is_clear = len(comparison.protocols) <= len(comparison.recipes)
    return recipes if is_clear else f"{protocol}: {recipes}"


def _difference(cell: Any, usual: int) -> Value:
    """Return a paired difference as a cell, which says its number of seeds unless it is usual."""
    if not cell.pairs > 1:
        return Value()
    said = []
    if not math.isnan(cell.p):
        digits = 2 if cell.p_holm >= 0.01 else 3
        p = "< 0.001" if cell.p_holm < 0.001 else f"{cell.p_holm:.{digits}f}"
        said += [f"{signed(cell.low)} to {signed(cell.high)}", f"p {p}"]
    if cell.pairs != usual:
        said.append(count(cell.pairs, "seed"))
    more = f" ({', '.join(said)})" if said else ""
    return Value(f"{signed(cell.difference)}{more}", cell.difference)
