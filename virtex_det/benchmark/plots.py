"""Curves of a comparison: metrics against fraction of labels, training time and iterations."""

import io
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from virtex_det.benchmark.comparison import Cell, Comparison, share
from virtex_det.benchmark.evaluated_run import EvaluatedRun
from virtex_det.benchmark.records import ResultRecord
from virtex_det.benchmark.statistics import AP
from virtex_det.benchmark.tables import title_of
from virtex_det.errors import UserError
from virtex_det.escaping import in_plot
from virtex_det.pages.html import data_uri
from virtex_det.pages.theme import LIGHT, SMALL_TYPE, on_dark_ground
from virtex_det.utils import replacing

MARKERS = "osD^vP*X<>"
STYLES = ("-", "--", ":", "-.")
# With more curves in a plot, names stand at the lines, and bands would hide each other.
MOST_IN_LEGEND = 4
# Inches, of one plot: half the width of a page at a browser's 96 pixels per inch.
SIZE = (464 / 96, 320 / 96)
TYPE_SIZE = SMALL_TYPE * 72 / 96  # points

_NAME_WIDTH, _NAME_LINES = 20, 2  # characters and lines of a name at a line
_LINE_HEIGHT = 1.15  # of type
_FEW_POINTS = 8  # in a plot against time, which can all be labelled with their fraction


class Curve(NamedTuple):
    """A line of a plot.

    Attributes:
        start: what it shows; label: its name in the plot.
        points: columns x, mean, deviation; those of ``summarize`` also fraction and seconds.
        style: of Matplotlib's ``plot``.
    """

    start: str
    label: str
    points: pd.DataFrame
    style: dict[str, Any]


class Plots(NamedTuple):
    """The plots of a page.

    Attributes:
        curves: of AP against fraction of labels and time.
        histories: of AP over iterations.
        have_bands: whether they have bands of one standard deviation.
    """

    curves: list[dict[str, str]]
    histories: list[dict[str, str]]
    have_bands: bool


def has_bands(comparison: Comparison) -> bool:
    """Return whether plots have few enough curves for bands, and seeds to make them of."""
    curves = comparison.curves
    return len(curves.starts) * len(curves.protocols) <= MOST_IN_LEGEND and len(curves.seeds) > 1


def curve_metrics(comparison: Comparison, metrics: Sequence[str]) -> list[str]:
    """Return the metrics of plots: those that protocols with several fractions measured.

    Args:
        comparison: what was measured.
        metrics: to choose from; all of them if those protocols measured none.
    """
    return [metric for metric in metrics if metric in comparison.curves.metrics] or list(metrics)


def draw_plots(
    comparison: Comparison,
    summary: pd.DataFrame,
    colours: Mapping[str, str],
    pretraining: Mapping[str, float | None],
    runs: Mapping[Cell, EvaluatedRun],
) -> Plots:
    """Draw the plots of a page.

    Args:
        comparison: what was measured.
        summary: of ``summarize``, with box and mask AP.
        colours: by start.
        pretraining: seconds by start; None if unknown.
        runs: of the comparison.
    """
    metrics = [metric for metric in AP if metric in summary.index.unique("metric")]
    curves, drawn = [], comparison.curves
    if len(drawn.fractions) > 1:
        for metric in curve_metrics(comparison, metrics):
            figure = plot_fractions(comparison, summary.loc[[metric]], colours)
            curves.append(as_picture(figure, f"{title_of(metric)} against the part of the labels"))
    if len(drawn.fractions) > 1 and drawn.frame["seconds"].notna().any():
        # A start whose pretraining is unknown would look cheap beside the others: all or none.
        known = {start: seconds for start, seconds in pretraining.items() if seconds is not None}
        counted = known if len(known) == len(pretraining) and any(known.values()) else None
        for metric in curve_metrics(comparison, metrics):
            figure = plot_time(comparison, summary.loc[[metric]], colours, counted)
            curves.append(as_picture(figure, f"{title_of(metric)} against training time"))
    histories = []
    for (protocol, fraction), starts in _histories(runs).items():
        for metric in metrics:
            title = f"{title_of(metric)}, {share(fraction)} of the labels"
            title += f", {protocol}" if len(comparison.protocols) > 1 else ""
            histories.append(as_picture(plot_history(starts, metric, colours), title))
    return Plots(curves, histories, has_bands(comparison))


def _histories(
    runs: Mapping[Cell, EvaluatedRun],
) -> dict[tuple[str, float], dict[str, list[ResultRecord]]]:
    """Return records from evaluations in training, by protocol and fraction, then by start."""
    panels: dict[tuple[str, float], dict[str, list[ResultRecord]]]
    panels = defaultdict(lambda: defaultdict(list))
    for cell, run in runs.items():
        if len(history := run.history()) > 1:
            panels[cell.protocol, cell.fraction][cell.start] += history
    return panels


def as_picture(figure: Figure, title: str) -> dict[str, str]:
    """Return a plot as data URIs, on white and on dark ground, with its title."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return {
        "title": title,
        "light": data_uri(svg.encode(), "svg+xml"),
        "dark": data_uri(on_dark_ground(svg).encode(), "svg+xml"),
    }


def plot_fractions(
    comparison: Comparison, summary: pd.DataFrame, colours: Mapping[str, str]
) -> Figure:
    """Draw metrics side by side against the fraction of the labels, on a logarithmic axis.

    Protocols with one fraction have no curves, unless all are like that.
    Bands are one standard deviation. With more than ``MOST_IN_LEGEND`` curves, names stand at the
    lines and there are no bands.

    Args:
        comparison: what was measured.
        summary: of ``summarize``, with the metrics to draw.
        colours: by start.
    """
    figure, panels = _figure(comparison, summary, colours)
    for axes, curves in panels:
        axes.set_xscale("log")
        axes.set_xticks(comparison.curves.fractions)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda fraction, _: f"{100 * fraction:.3g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("part of the labels, %")
        _draw(axes, [_at(curve, curve.points["fraction"]) for curve in curves])
    return finished(figure)


def plot_time(
    comparison: Comparison,
    summary: pd.DataFrame,
    colours: Mapping[str, str],
    pretraining: Mapping[str, float] | None = None,
) -> Figure:
    """Draw metrics side by side against the time of training, with a point per fraction.

    If all fractions are trained for as many iterations, the points of a start lie above each other.
    So they are points, connected by a thin line, and labelled with their fraction. Time is that of
    training steps, without interruptions and evaluations; the axis says whether it includes
    pretraining.

    Args:
        comparison, summary, colours: as of ``plot_fractions``.
        pretraining: seconds by start, to be added; the legend names starts that are missing.
    """
    counted = "pretraining and fine-tuning" if pretraining else "fine-tuning, without pretraining"
    figure, panels = _figure(comparison, summary, colours)
    for axes, curves in panels:
        timed = [_with_pretraining(curve, pretraining) for curve in curves]
        longest = max((curve.points["x"].max() for curve in timed if len(curve.points)), default=0)
        unit, length = _unit(longest)
        timed = [_at(curve, curve.points["x"] / length) for curve in timed]
        axes.set_xlabel(f"{unit} of {counted}")
        axes.set_xlim(0, 1.15 * longest / length or 1)
        _draw(axes, timed, is_joined=False)
        _name_fractions(axes, timed)
    return finished(figure)


def plot_history(
    records: Mapping[str, Sequence[ResultRecord]], metric: str, colours: Mapping[str, str]
) -> Figure:
    """Draw a metric over training iterations, with a band of one standard deviation over seeds.

    Args:
        records: of runs that were evaluated in training, by start.
        metric: "bbox/AP" or "segm/AP".
        colours: by start.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    curves = []
    for place, (start, found) in enumerate(records.items()):
        iterations = [record.iteration or 0 for record in found]
        values = pd.Series([record.flat_metrics().get(metric) or 0.0 for record in found])
        points = values.groupby(iterations).agg(mean="mean", deviation="std").fillna(0.0)
        style = {"color": colours[start], "marker": MARKERS[place % len(MARKERS)]}
        curves.append(_at(Curve(start, start, points, style), points.index))
    axes.set_xlabel("fine-tuning iteration")
    axes.set_ylabel(title_of(metric))
    _draw(axes, curves)
    axes.set_xlim(0, None)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return finished(figure)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the file's suffix; the same figure gives the same bytes.

    Raises:
        UserError: the suffix is none of .png, .svg and .pdf.
    """
    dates = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    if path.suffix not in dates:
        raise UserError(
            f"Plots are written as {', '.join(dates)}, but the file is {path}. Change its suffix."
        )
    with replacing(path) as unfinished, rc_context({"svg.hashsalt": "virtex_det"}):
        figure.savefig(unfinished, format=path.suffix[1:], dpi=150, metadata=dates[path.suffix])


def spread_out(places: Sequence[float], heights: Sequence[float], top: float) -> list[float]:
    """Move labels up and down as little as possible so that none covers another.

    Args:
        places: preferred middle of each label, ascending.
        heights: of the labels.
        top: highest upper edge of the last label; those below it give way.

    Example:
        >>> spread_out([1.0, 1.0, 5.0], [2.0, 2.0, 2.0], 6.0)
        [1.0, 3.0, 5.0]
    """
    moved = list(places)
    for upper in range(1, len(moved)):
        distance = (heights[upper - 1] + heights[upper]) / 2
        moved[upper] = max(moved[upper], moved[upper - 1] + distance)
    if moved:
        moved[-1] = min(moved[-1], top - heights[-1] / 2)
    for upper in range(len(moved) - 1, 0, -1):
        distance = (heights[upper - 1] + heights[upper]) / 2
        moved[upper - 1] = min(moved[upper - 1], moved[upper] - distance)
    return moved


def _figure(
    comparison: Comparison, summary: pd.DataFrame, colours: Mapping[str, str]
) -> tuple[Figure, list[tuple[Axes, list[Curve]]]]:
    """Return a figure with a plot per metric, and the curves of each."""
    metrics = curve_metrics(comparison, summary.index.unique("metric"))
    if set(metrics) <= set(comparison.curves.metrics):
        comparison = comparison.curves
        summary = summary[summary.index.isin(comparison.protocols, "protocol")]
    panels = [_curves(comparison, summary.loc[metric], colours) for metric in metrics]
    most = max(map(len, panels), default=0)
    height = max(SIZE[1], most * TYPE_SIZE * _LINE_HEIGHT / 72 + 1)
    figure = Figure(figsize=(SIZE[0] * len(metrics), height), layout="constrained")
    all_axes = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(all_axes, metrics, strict=True):
        axes.set_ylabel(in_plot(title_of(metric)))
    return figure, list(zip(all_axes, panels, strict=True))


def _curves(comparison: Comparison, part: pd.DataFrame, colours: Mapping[str, str]) -> list[Curve]:
    curves = []
    known = part.dropna(subset="mean").fillna({"deviation": 0.0}).reset_index("fraction")
    groups = known.groupby(["protocol", "start"], sort=False, observed=True)
    for (protocol, start), points in groups:
        style = {
            "color": colours[start],
            "marker": MARKERS[comparison.starts.index(start) % len(MARKERS)],
            "linestyle": STYLES[comparison.protocols.index(protocol) % len(STYLES)],
        }
        label = f"{start}, {protocol}" if len(comparison.protocols) > 1 else start
        curves.append(Curve(start, label, points, style))
    return curves


def _at(curve: Curve, x: Any) -> Curve:
    """Return a curve with its points at these places."""
    return curve._replace(points=curve.points.assign(x=x))


def _with_pretraining(curve: Curve, pretraining: Mapping[str, float] | None) -> Curve:
    """Return the points whose time is known, at their seconds."""
    before = (pretraining or {}).get(curve.start)
    if pretraining is not None and before is None:
        curve = curve._replace(label=f"{curve.label} (without pretraining)")
    points = curve.points.dropna(subset="seconds")
    return _at(curve._replace(points=points), (before or 0.0) + points["seconds"])


def _unit(longest: float) -> tuple[str, float]:
    """Return the unit for times up to this many seconds, and its own length in seconds."""
    if longest < 120:
        return "seconds", 1.0
    return ("minutes", 60.0) if longest < 3 * 3600 else ("hours", 3600.0)


def _draw(axes: Axes, curves: Sequence[Curve], *, is_joined: bool = True) -> None:
    """Draw lines with bands, or points with bars; neither bands nor bars if there are many."""
    width, size = (1.6, 4.5) if is_joined else (0.7, 6.5)
    for _, label, points, style in curves:
        x, mean, deviation = points[["x", "mean", "deviation"]].to_numpy().T
        label = in_plot(label)
        axes.plot(x, mean, label=label, markersize=size, linewidth=width, **style)
        if len(curves) > MOST_IN_LEGEND or not len(x):
            continue
        colour = style["color"]
        if is_joined:
            low, high = mean - deviation, mean + deviation
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        else:
            axes.errorbar(x, mean, deviation, fmt="none", ecolor=colour, elinewidth=1.2)


def finished(figure: Figure, least_top: float = 1.0) -> Figure:
    """Set a figure's colours, sizes of type and grid, and name its curves.

    Args:
        figure: with curves from 0 upwards.
        least_top: the least upper end of the axes.
    """
    figure.set_facecolor(LIGHT.ground)
    for axes in figure.axes:
        axes.set_facecolor(LIGHT.ground)
        axes.set_ylim(0, max(1.05 * axes.dataLim.y1, least_top) or 1.0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(LIGHT.soft)
        axes.grid(axis="y", color=LIGHT.line, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(color=LIGHT.soft, labelcolor=LIGHT.ink, labelsize=TYPE_SIZE, length=3)
        axes.tick_params(axis="y", length=0)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(color=LIGHT.ink, fontsize=TYPE_SIZE)
    look: dict[str, Any] = {"frameon": False, "handlelength": 1.6, "borderaxespad": 0}
    for number, axes in enumerate(figure.axes):
        if len(axes.lines) > MOST_IN_LEGEND:
            _name_lines(figure, axes)
        elif number == 0 and axes.lines:
            axes.legend(fontsize=TYPE_SIZE, labelcolor=LIGHT.ink, **look)
    return figure


def _name_fractions(axes: Axes, curves: Sequence[Curve]) -> None:
    """Write fractions beside all points if there are few, else beside the best line's ends."""
    drawn = [curve.points for curve in curves if len(curve.points)]
    are_few = sum(map(len, drawn)) <= _FEW_POINTS
    if not are_few:
        best = max(drawn, key=lambda points: points["mean"].max())
        drawn = [best.iloc[sorted({0, len(best) - 1})]]
    look: dict[str, Any] = {"fontsize": TYPE_SIZE * 0.9, "color": LIGHT.soft, "va": "center"}
    look |= {"xytext": (7, 0), "ha": "left"} if are_few else {"xytext": (-7, 0), "ha": "right"}
    for points in drawn:
        for point in points.itertuples():
            place = (point.x, point.mean)
            axes.annotate(share(point.fraction), place, textcoords="offset points", **look)


def _name_lines(figure: Figure, axes: Axes) -> None:
    """Write names right of the plot, as near to the ends of their lines as the others allow."""
    figure.draw_without_rendering()
    top = axes.get_ylim()[1]
    unit = top / (axes.bbox.height * 72 / figure.dpi)  # of the axis, per point of type
    drawn = [line for line in axes.lines if np.size(line.get_xdata())]
    ends = {line: tuple(np.asarray(line.get_xydata())[-1]) for line in drawn}
    lines = sorted(drawn, key=lambda line: ends[line][1])
    names = [_in_lines(str(line.get_label())) for line in lines]
    heights = [(name.count("\n") + 1) * TYPE_SIZE * _LINE_HEIGHT * unit for name in names]
    places = spread_out([ends[line][1] for line in lines], heights, top)
    leader = {"arrowstyle": "-", "linewidth": 1, "linestyle": ":", "shrinkA": 1, "shrinkB": 3}
    leader["relpos"] = (0, 0.5)
    for line, name, place in zip(lines, names, places, strict=True):
        axes.annotate(
            name,
            ends[line],
            (1.05, place),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=TYPE_SIZE,
            linespacing=1.0,
            color=LIGHT.ink,
            arrowprops=leader | {"color": line.get_color()},
            annotation_clip=False,
        )


def _in_lines(name: str) -> str:
    """Break a name into lines that fit beside a plot; a very long one loses its middle."""
    room = _NAME_WIDTH * _NAME_LINES - 4
    name = name.replace(r"\$", "$")  # escaped again below: no line may end between the two
    if len(name) > room:
        name = f"{name[: room // 2]}…{name[-room // 2 :]}"
    return "\n".join(textwrap.wrap(name, _NAME_WIDTH)[: _NAME_LINES + 1]).replace("$", r"\$")
