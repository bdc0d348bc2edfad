"""Comparisons with known numbers, and their tables and plots."""

import dataclasses
from collections.abc import Callable, Mapping

from matplotlib.figure import Figure

from virtex_det.benchmark.comparison import Cell, Comparison
from virtex_det.benchmark.plots import plot_fractions, plot_time
from virtex_det.benchmark.records import ResultRecord
from virtex_det.benchmark.statistics import find_metrics, summarize
from virtex_det.benchmark.tables import FORMATS
from virtex_det.pages.theme import line_colours

Scores = Mapping[tuple[str, float], tuple[float | None, ...]]


def compare(
    make_record: Callable[..., ResultRecord], scores: Scores, *, protocol: str = "scenes-segm"
) -> Comparison:
    """Return a comparison of box AP by (start, fraction) and seed, with the baseline "random".

    Mask AP is half of box AP.
    """
    records = {}
    for (start, fraction), values in scores.items():
        for seed, box in enumerate(values):
            record = make_record(box or 0.0, (box or 0.0) / 2, seed=seed, fraction=fraction)
            metrics = record.metrics
            if box is None:
                metrics = {"bbox": {"AP": None}, "segm": {"AP": None}}
            record = dataclasses.replace(record, protocol=protocol, metrics=metrics)
            records[Cell(start, protocol, fraction, seed)] = record
    return Comparison("Known numbers", "random", records)


def mixed(
    make_record: Callable[..., ResultRecord], scores: Scores, protocols: tuple[str, ...]
) -> Comparison:
    """Return the same numbers under several protocols."""
    records: dict[Cell, ResultRecord] = {}
    for protocol in protocols:
        records |= compare(make_record, scores, protocol=protocol).records
    return Comparison("Mixed", "random", records, mix=True)


def rendered(comparison: Comparison, *metrics: str, style: str = "markdown") -> str:
    """Return the tables in a format, of box and mask AP where no metrics are given."""
    summary = summarize(comparison, find_metrics(comparison, metrics))
    return FORMATS[style](comparison, summary)


def drawn(
    comparison: Comparison,
    *metrics: str,
    against: str = "fraction",
    pretraining: Mapping[str, float] | None = None,
) -> Figure:
    """Return the plot of metrics, of box and mask AP where none are given."""
    summary = summarize(comparison, find_metrics(comparison, metrics))
    colours = line_colours(comparison.starts, comparison.baseline)
    if against == "time":
        return plot_time(comparison, summary, colours, pretraining)
    return plot_fractions(comparison, summary, colours)
