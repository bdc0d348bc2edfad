"""Curves of a comparison: a metric against the part of the labels and against the time of training."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from virtex_det.benchmark.comparison import Comparison
from virtex_det.benchmark.statistics import METRICS, Metrics, share, summarize
from virtex_det.errors import UserError
from virtex_det.escaping import in_plot
from virtex_det.utils import replacing

BASELINE = "#8c8c8c"
# Okabe and Ito's colours without their yellow, told apart by the colour-blind too; then tones of the same.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7b3294", "#8c510a", "#01665e")
MARKERS = "osD^vP*X<>"
STYLES = ("-", "--", ":", "-.")
SIZE = (4.8, 3.2)  # inches, of one curve


def start_colours(comparison: Comparison) -> dict[str, str]:
    """Return a colour per start: grey for the baseline, the others in their order."""
    others = [start for start in comparison.starts if start != comparison.baseline]
    colours = {start: PALETTE[number % len(PALETTE)] for number, start in enumerate(others)}
    return {start: colours.get(start, BASELINE) for start in comparison.starts}


def plot_fractions(comparison: Comparison, *titles: str, metrics: Metrics = METRICS) -> Figure:
    """Draw metrics against the part of the labels, on a logarithmic axis, with bands of one standard deviation.

    Args:
        comparison: what was measured.
        titles: of the metrics, drawn side by side; by default all.
        metrics: by title.
    """
    figure, curves = _figure(comparison, titles or tuple(metrics), metrics)
    for axes, lines in curves:
        for line in lines:
            _draw(axes, line, [point.fraction for point in line.points])
        axes.set_xscale("log")
        axes.set_xticks(comparison.fractions)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda fraction, _: share(fraction)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(axis="x", labelsize="small")
        axes.set_xlabel("part of the labels")
    return _finished(figure)


def plot_time(
    comparison: Comparison, *titles: str, metrics: Metrics = METRICS, pretraining: Mapping[str, float] | None = None
) -> Figure:
    """Draw metrics against the time of training: a point per part of the labels, those of a start joined.

    Counted are training steps alone, without interruptions and evaluations; the axis says whether pretraining is in it.

    Args:
        comparison: what was measured.
        titles: of the metrics, drawn side by side; by default all.
        metrics: by title.
        pretraining: seconds by start, to be added; the legend says of which start they are not known.
    """
    figure, curves = _figure(comparison, titles or tuple(metrics), metrics)
    for axes, lines in curves:
        best = max(lines, key=lambda line: max(point.mean for point in line.points), default=None)
        for line in lines:
            before = (pretraining or {}).get(line.start)
            label = line.label if pretraining is None or before is not None else f"{line.label} (without pretraining)"
            timed = [point for point in line.points if not math.isnan(point.seconds)]
            x = [((before or 0.0) + point.seconds) / 60 for point in timed]
            _draw(axes, line._replace(points=timed, label=label), x)
            if line is best:
                for point, minutes in zip(timed, x, strict=True):
                    axes.annotate(
                        share(point.fraction), (minutes, point.mean), (5, -3), textcoords="offset points", size=6
                    )
        counted = "pretraining and fine-tuning" if pretraining else "fine-tuning, without pretraining"
        axes.set_xlabel(f"minutes of {counted}")
        axes.set_xlim(0, None)
    return _finished(figure)


class Point(NamedTuple):
    """A metric with one part of the labels, over seeds; NaN for a time that is not known."""

    fraction: float
    seconds: float
    mean: float
    deviation: float


class Line(NamedTuple):
    """The points of one start under one protocol, and how they look."""

    start: str
    label: str
    style: dict[str, Any]
    points: list[Point]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the file's suffix; the same figure gives the same bytes.

    Raises:
        UserError: there is no such format.
    """
    dates = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    if path.suffix not in dates:
        raise UserError(f"Pictures are written as {', '.join(dates)}, and {path} ends on none of these.")
    with replacing(path) as unfinished, rc_context({"svg.hashsalt": "virtex_det"}):
        figure.savefig(unfinished, format=path.suffix[1:], dpi=150, metadata=dates[path.suffix])


def _figure(
    comparison: Comparison, titles: Sequence[str], metrics: Metrics
) -> tuple[Figure, list[tuple[Axes, list[Line]]]]:
    figure = Figure(figsize=(SIZE[0] * len(titles), SIZE[1]), layout="constrained")
    axes = figure.subplots(1, len(titles), squeeze=False)[0]
    summary = summarize(comparison, {title: metrics[title] for title in titles})
    for axis, title in zip(axes, titles, strict=True):
        axis.set_ylabel(in_plot(title))
        axis.spines[["top", "right"]].set_visible(False)
    return figure, [(axis, _lines(comparison, summary.loc[title])) for axis, title in zip(axes, titles, strict=True)]


def _finished(figure: Figure) -> Figure:
    for axes in figure.axes:
        axes.set_ylim(0, None)
    figure.axes[0].legend(frameon=False, fontsize="x-small")
    return figure


def _lines(comparison: Comparison, part: pd.DataFrame) -> list[Line]:
    colours = start_colours(comparison)
    lines = []
    known = part.dropna(subset="mean").fillna({"deviation": 0.0})
    for (protocol, start), found in known.groupby(["protocol", "start"], sort=False, observed=True):
        columns = (found.index.get_level_values("fraction"), *(found[name] for name in Point._fields[1:]))
        style = {
            "color": colours[start],
            "marker": MARKERS[comparison.starts.index(start) % len(MARKERS)],
            "linestyle": STYLES[comparison.protocols.index(protocol) % len(STYLES)],
        }
        label = f"{start}, {protocol}" if len(comparison.protocols) > 1 else start
        lines.append(Line(start, label, style, list(map(Point, *columns))))
    return lines


def _draw(axes: Axes, line: Line, x: list[float]) -> None:
    mean = [point.mean for point in line.points]
    low, high = ([p.mean + sign * p.deviation for p in line.points] for sign in (-1, 1))
    axes.plot(x, mean, label=in_plot(line.label), markersize=3.5, linewidth=1.2, **line.style)
    axes.fill_between(x, low, high, color=line.style["color"], alpha=0.15, linewidth=0)
