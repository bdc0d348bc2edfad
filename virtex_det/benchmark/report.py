"""The pages of a comparison: one in Markdown, and one in HTML that holds its curves and pictures."""

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from matplotlib.figure import Figure

from virtex_det.benchmark.comparison import Cell, Comparison
from virtex_det.benchmark.conditions import conditions, cost_table, costs
from virtex_det.benchmark.finding import Finding, main_finding
from virtex_det.benchmark.matching import MIN_OVERLAP
from virtex_det.benchmark.pictures import (
    MAX_STARTS,
    SCORE_THRESHOLD,
    TRUTH,
    Run,
    Strip,
    draw_strips,
    has_own_detections,
)
from virtex_det.benchmark.plots import (
    MOST_IN_LEGEND,
    plot_fractions,
    plot_history,
    plot_time,
    save_figure,
    start_colours,
)
from virtex_det.benchmark.records import ResultRecord, read_records
from virtex_det.benchmark.statistics import METRICS, TASKS, Metrics, share, tasks_of
from virtex_det.benchmark.tables import (
    WORDS,
    category_tables,
    count,
    protocol_tables,
    render_markdown,
)
from virtex_det.escaping import in_code
from virtex_det.files import refuse_special_target
from virtex_det.pages.html import data_uri, render_html
from virtex_det.pages.paths import shown_path
from virtex_det.pages.theme import DARK, on_dark_ground
from virtex_det.utils import fill_template, write_atomically


def render_page(
    comparison: Comparison,
    cards: Mapping[str, Mapping[str, str]],
    commands: Sequence[str],
    *,
    picture: str,
    metrics: Metrics = METRICS,
) -> str:
    """Return the page in Markdown; the same records give the same text.

    Args:
        comparison: what was measured.
        cards: of its protocols, by name.
        commands: shell lines that repeat it.
        picture: name of the file of curves.
        metrics: to show.
    """
    return fill_template(
        Path(__file__).with_name("page.md.j2"),
        title=comparison.title,
        tables=render_markdown(comparison, metrics, heading="##").strip(),
        metrics=" and ".join(metrics),
        has_bands=_has_bands(comparison),
        picture=quote(picture),
        cards=cards,
        conditions=conditions(comparison),
        commands=in_code(commands),
    )


def write_page(
    path: Path,
    comparison: Comparison,
    cards: Mapping[str, Mapping[str, str]],
    commands: Sequence[str],
    metrics: Metrics = METRICS,
) -> list[Path]:
    """Write the page in Markdown, and its curves beside it.

    Returns:
        The files, the page last.
    """
    refuse_special_target(path)
    picture = path.with_suffix(".svg")
    save_figure(plot_fractions(comparison, metrics=metrics), picture)
    write_atomically(
        path, render_page(comparison, cards, commands, picture=picture.name, metrics=metrics)
    )
    return [picture, path]


def write_report(
    page: str | Path,
    comparison: Comparison,
    *,
    folders: Mapping[Cell, Path],
    annotations: str | Path | None = None,
    image_root: str | Path | None = None,
    cards: Mapping[str, Mapping[str, str]],
    commands: Mapping[str, Sequence[str]],
    notes: Sequence[str] = (),
) -> None:
    """Write the page in HTML.

    Args:
        page: HTML file to write.
        comparison: what the runs measured.
        folders: their run folders, for pictures and AP over iterations; a folder need not be there.
        annotations: COCO or LVIS JSON of the evaluation set; None for a page without pictures.
        image_root: folder of its images.
        cards: by protocol, what it is in words.
        commands: shell lines by what they make, a row of the table for example.
        notes: sentences on what was equal and what was not that the records cannot know.
    """
    results = [protocol_tables(comparison, protocol) for protocol in comparison.protocols]
    categories = category_tables(comparison)
    sentences = [*conditions(comparison), *notes]
    spent = costs(comparison)
    cost_rows = cost_table(spent)
    found = main_finding(comparison)
    pictures = _pictures(comparison, folders, annotations, image_root, found)
    html = render_html(
        "benchmark/report.html.j2",
        comparison=comparison,
        finding=found.sentence,
        first_row=_first_row(pictures, found),
        lead=_lead(comparison),
        colours=start_colours(comparison),
        dark_colours=start_colours(comparison, DARK),
        has_bands=_has_bands(comparison),
        words=WORDS,
        results=results,
        curves=_curves(comparison, {start: cost.pretraining for start, cost in spent.items()}),
        histories=_histories(comparison, folders),
        categories=categories,
        pictures=pictures,
        min_overlap=MIN_OVERLAP,
        cards=cards,
        conditions=sentences,
        costs=cost_rows,
        commands=commands,
        facts=_facts(list(comparison.records.values())),
    )
    write_atomically(page, html)


def as_picture(figure: Figure, title: str) -> dict[str, str]:
    """Return a plot as data URIs, one on white and one on dark ground, with the title that says what it shows."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return {
        "title": title,
        "light": data_uri(svg.encode(), "svg+xml"),
        "dark": data_uri(on_dark_ground(svg).encode(), "svg+xml"),
    }


def _has_bands(comparison: Comparison) -> bool:
    """Say whether plots are of few enough curves for bands."""
    return len(comparison.starts) * len(comparison.protocols) <= MOST_IN_LEGEND


def _lead(comparison: Comparison) -> str:
    records = comparison.records.values()
    data = _joined(
        f"{record.dataset}, {record.dataset_version['images']} images" for record in records
    )
    fractions = ", ".join(map(share, comparison.fractions)).replace(" %", "\u00a0%")
    return (
        f"The same detector from {count(len(comparison.starts), 'start')}, fine-tuned on {fractions} of the labels "
        f"with {count(len(comparison.seeds), 'seed')}; evaluated on {data}. Protocol {_joined(comparison.recipes)}."
    )


def _joined(words: Iterable[str]) -> str:
    return " and ".join(sorted(set(words)))


def _curves(
    comparison: Comparison, pretraining: Mapping[str, float | None]
) -> list[dict[str, str]]:
    """Return AP against labels and against time; with pretraining's where it is known of every start, since a start
    of which it is not would look cheap beside the others."""
    if len(comparison.fractions) < 2:
        return []
    metrics = [title for title, (task, _) in METRICS.items() if task in tasks_of(comparison)]
    figures = {
        f"{metric} against the part of the labels": plot_fractions(comparison, metric)
        for metric in metrics
    }
    if any(record.training_seconds is not None for record in comparison.records.values()):
        known = {start: seconds for start, seconds in pretraining.items() if seconds is not None}
        counted = known if len(known) == len(pretraining) and any(known.values()) else None
        figures |= {
            f"{m} against training time": plot_time(comparison, m, pretraining=counted)
            for m in metrics
        }
    return [as_picture(figure, title) for title, figure in figures.items()]


def _histories(comparison: Comparison, folders: Mapping[Cell, Path]) -> list[dict[str, str]]:
    """Return curves of AP over iterations, where runs were evaluated on their way."""
    colours = start_colours(comparison)
    panels: dict[tuple[str, float], dict[str, list[ResultRecord]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for cell, last in comparison.records.items():
        found = {
            record.iteration: record
            for record in read_records(folders[cell])
            if _is_on_the_way(record, last)
        }
        if len(found) > 1:
            panels[cell.protocol, cell.fraction][cell.start] += found.values()
    figures = []
    for (protocol, fraction), starts in panels.items():
        for task in tasks_of(comparison):
            title = f"{TASKS[task]} AP, {share(fraction)} of the labels"
            title += f", {protocol}" if len(comparison.protocols) > 1 else ""
            figures.append(as_picture(plot_history(starts, task, colours), title))
    return figures


def _is_on_the_way(record: ResultRecord, last: ResultRecord) -> bool:
    """Say whether a record of a run's folder is of its training, and not of another file or with other settings."""
    of_run = (last.dataset, last.config_sha256)
    return (record.dataset, record.config_sha256) == of_run and (
        record == last or not record.evaluated
    )


def _pictures(
    comparison: Comparison,
    folders: Mapping[Cell, Path],
    annotations: str | Path | None,
    image_root: str | Path | None,
    found: Finding,
) -> dict[str, Any] | None:
    """Return the same images under each start."""
    if annotations is None or image_root is None:
        return None
    cells = _cells_to_show(comparison, folders, found.starts)
    runs = {
        start: Run(Path(folders[cell]), comparison.records[cell]) for start, cell in cells.items()
    }
    return {
        "strips": draw_strips(runs, annotations, image_root) if Path(annotations).exists() else [],
        "runs": _joined(
            f"{share(cell.fraction)} of the labels and seed {cell.seed}" for cell in cells.values()
        ),
        "left_out": [start for start in comparison.starts if start not in cells],
        "sources": [shown_path(annotations), shown_path(image_root)],
        "threshold": SCORE_THRESHOLD,
    }


def _first_row(pictures: Mapping[str, Any] | None, found: Finding) -> Strip | None:
    """Return the first image as labelled and under the starts of the finding: what stands above everything else."""
    if not pictures or not pictures["strips"]:
        return None
    strip = pictures["strips"][0]
    shown = [title for title in (TRUTH, *found.starts) if title in strip.pictures]
    return strip._replace(pictures={title: strip.pictures[title] for title in shown})


def _cells_to_show(
    comparison: Comparison, folders: Mapping[Cell, Path], first: Sequence[str]
) -> dict[str, Cell]:
    """Return by start, of the first protocol, the lowest seed with the most labels that left detections.

    Of more than MAX_STARTS the last are left out, but none of ``first``.
    """
    cells: dict[str, Cell] = {}
    for cell in sorted(comparison.records, key=lambda cell: (-cell.fraction, cell.seed)):
        run = Run(Path(folders[cell]), comparison.records[cell])
        if cell.protocol == comparison.protocols[0] and has_own_detections(run):
            cells.setdefault(cell.start, cell)
    by_rank = [start for start in dict.fromkeys([*first, *comparison.starts]) if start in cells]
    return {start: cells[start] for start in comparison.starts if start in by_rank[:MAX_STARTS]}


def _facts(records: Sequence[ResultRecord]) -> dict[str, str]:
    """Return what the records say of code, libraries, machine and data; several values where they differ."""
    data: dict[str, dict[str, Any]] = {}
    for record in records:
        data |= record.train_versions | {record.dataset: record.dataset_version}
    days = sorted(record.created for record in records)
    return {
        "Code": _joined(record.code_revision for record in records),
        "Libraries": _joined(
            ", ".join(f"{n} {v}" for n, v in record.versions.items()) for record in records
        ),
        "Hardware": _joined(_hardware(record.hardware) for record in records),
        "Data": ", ".join(
            f"{name}: {v['images']} images, sha256 {v['sha256'][:12]}" for name, v in data.items()
        ),
        "Evaluated": " to ".join(dict.fromkeys([days[0], days[-1]])),
    }


def _hardware(hardware: Mapping[str, Any]) -> str:
    gpus = f", {hardware.get('gpus', 1)} × {hardware['gpu']}" if hardware.get("gpu") else ""
    return f"{hardware.get('cpu', 'unknown')}, {hardware.get('cores', '?')} cores{gpus}"
