"""The pages of a comparison: one in Markdown, and one in HTML that holds its plots and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from virtex_det.benchmark.comparison import Cell, Comparison
from virtex_det.benchmark.conditions import conditions, cost_table, costs, facts, setting
from virtex_det.benchmark.evaluated_run import EvaluatedRun
from virtex_det.benchmark.finding import main_finding
from virtex_det.benchmark.pictures import draw_gallery
from virtex_det.benchmark.plots import (
    curve_metrics,
    draw_plots,
    has_bands,
    plot_fractions,
    save_figure,
)
from virtex_det.benchmark.records import read_records
from virtex_det.benchmark.statistics import AP, compare_pairs, overview, summarize
from virtex_det.benchmark.tables import (
    WORDS,
    category_tables,
    markdown_grid,
    overview_tables,
    protocol_tables,
    render_markdown,
    title_of,
)
from virtex_det.benchmark.wide_table import wide_metrics, wide_table
from virtex_det.escaping import in_code
from virtex_det.files import refuse_special_target
from virtex_det.pages.html import render_html
from virtex_det.pages.theme import DARK, line_colours
from virtex_det.utils import fill_template, write_atomically

Cards = Mapping[str, Mapping[str, str]]  # what a protocol is in words, by its name


def render_markdown_page(
    comparison: Comparison,
    summary: pd.DataFrame,
    *,
    cards: Cards,
    commands: Sequence[str],
    picture: str,
) -> str:
    """Return the page in Markdown; the same records give the same text.

    Args:
        comparison: what was measured.
        summary: of ``summarize``, with the metrics to show.
        cards: of the protocols.
        commands: shell lines that repeat it.
        picture: name of the file with the curves.
    """
    metrics = list(summary.index.unique("metric"))
    spent = cost_table(costs(comparison), comparison.protocols) if comparison.pretraining else None
    return fill_template(
        Path(__file__).with_name("page.md.j2"),
        title=comparison.title,
        tables=render_markdown(comparison, summary, heading="##").strip(),
        metrics=" and ".join(map(title_of, curve_metrics(comparison, metrics))),
        has_bands=has_bands(comparison),
        picture=quote(picture),
        cards=cards,
        conditions=conditions(comparison),
        costs=markdown_grid(spent) if spent else "",
        notes_on_costs=spent.notes if spent else [],
        commands=in_code(commands),
    )


def write_markdown_page(
    path: Path,
    comparison: Comparison,
    *,
    cards: Cards,
    commands: Sequence[str],
    metrics: Sequence[str],
) -> list[Path]:
    """Write the page of some metrics in Markdown, and its curves beside it.

    Other arguments are those of ``render_markdown_page``.

    Returns:
        The written files, the page last.
    """
    refuse_special_target(path)
    picture = path.with_suffix(".svg")
    summary = summarize(comparison, metrics)
    colours = line_colours(comparison.starts, comparison.baseline)
    save_figure(plot_fractions(comparison, summary, colours), picture)
    page = render_markdown_page(
        comparison, summary, cards=cards, commands=commands, picture=picture.name
    )
    write_atomically(path, page)
    return [picture, path]


def write_report(
    page: str | Path,
    comparison: Comparison,
    *,
    folders: Mapping[Cell, Path],
    annotations: str | Path | None = None,
    image_root: str | Path | None = None,
    cards: Cards,
    commands: Mapping[str, Sequence[str]],
    notes: Sequence[str] = (),
) -> None:
    """Write the page in HTML.

    Args:
        page: HTML file to write.
        comparison: what the runs measured.
        folders: of the runs, for pictures and AP over iterations; they need not exist.
        annotations: COCO or LVIS JSON of the evaluation set; None for a page without pictures.
        image_root: folder of its images.
        cards: of the protocols.
        commands: shell lines, by what they make: a row of a table, for example.
        notes: sentences on what was equal and what was not that records cannot tell.
    """
    summary, paired = summarize(comparison), compare_pairs(comparison, AP)
    with_all_labels = overview(comparison, AP)
    finding = main_finding(comparison, summary)
    spent = costs(comparison)
    pretraining = {start: cost.pretraining for start, cost in spent.items()}
    runs = {}
    for cell, record in comparison.records.items():
        runs[cell] = EvaluatedRun(folders[cell], record, read_records(folders[cell]))
    colours = line_colours(comparison.starts, comparison.baseline)
    wide = None
    if len(comparison.protocols) > 1:
        wide = wide_table(comparison, wide_metrics(comparison))
    content = {
        "comparison": comparison,
        "finding": finding.sentence,
        "setting": setting(comparison),
        "conditions": [*conditions(comparison), *notes],
        "facts": facts(comparison),
        "costs": cost_table(spent, comparison.protocols),
        "results": protocol_tables(comparison, summary, paired),
        "overview": [*filter(None, [wide]), *overview_tables(comparison, with_all_labels)],
        "categories": category_tables(comparison),
        "words": WORDS,
        "plots": draw_plots(comparison, summary, colours, pretraining, runs),
        "pictures": draw_gallery(comparison, runs, annotations, image_root, finding.starts),
        "colours": colours,
        "dark_colours": line_colours(comparison.starts, comparison.baseline, DARK),
        "cards": cards,
        "commands": commands,
    }
    write_atomically(page, render_html("benchmark/report.html.j2", **content))
