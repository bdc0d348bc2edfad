"""Curves of a comparison: a metric against the part of the labels, the time of training and the iterations."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from virtex_det.benchmark.comparison import Comparison
from virtex_det.benchmark.records import ResultRecord
from virtex_det.benchmark.statistics import METRICS, TASKS, Metrics, share, summarize
from virtex_det.errors import UserError
from virtex_det.escaping import in_plot
from virtex_det.pages.theme import LIGHT, SMALL_TYPE, Theme, line_colours
from virtex_det.utils import replacing

MARKERS = "osD^vP*X<>"
STYLES = ("-", "--", ":", "-.")
MOST_IN_LEGEND = (
    4  # with more curves in a plot, names stand at the lines, and bands would hide each other
)
SIZE = (
    464 / 96,
    320 / 96,
)  # inches, of one plot: half the width of a page at a browser's 96 pixels per inch
TYPE_SIZE = SMALL_TYPE * 72 / 96  # points

_NAME_WIDTH, _NAME_LINES = 20, 2  # characters and lines of a name at a line
_LINE_HEIGHT = 1.15  # of type
_FEW_POINTS = 8  # in a plot against time, all of which can say their part of the labels


def start_colours(comparison: Comparison, theme: Theme = LIGHT) -> dict[str, str]:
    """Return a colour per start: grey for the baseline, the others in their order."""
    return line_colours(comparison.starts, comparison.baseline, theme)


def plot_fractions(comparison: Comparison, *titles: str, metrics: Metrics = METRICS) -> Figure:
    """Draw metrics against the part of the labels, on a logarithmic axis, with bands of one standard deviation.

    With more than ``MOST_IN_LEGEND`` curves names stand at the lines and there are no bands.

    Args:
        comparison: what was measured.
        titles: of the metrics, drawn side by side; by default all.
        metrics: by title.
    """
    figure, panels = _figure(comparison, titles or tuple(metrics), metrics)
    for axes, lines in panels:
        axes.set_xscale("log")
        axes.set_xticks(comparison.fractions)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda fraction, _: f"{100 * fraction:.3g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("part of the labels, %")
        curves = [line.curve([point.fraction for point in line.points]) for line in lines]
        _draw(axes, curves)
    return _finished(figure)


def plot_time(
    comparison: Comparison,
    *titles: str,
    metrics: Metrics = METRICS,
    pretraining: Mapping[str, float] | None = None,
) -> Figure:
    """Draw metrics against the time of training: a point per part of the labels.

    Where every part of the labels is trained on for as many iterations, the points of a start lie
    above each other. So they are points, held together by a thin line, and say which part they are.
    Counted are training steps alone, without interruptions and evaluations; the axis says whether
    pretraining is in it.

    Args:
        comparison: what was measured.
        titles: of the metrics, drawn side by side; by default all.
        metrics: by title.
        pretraining: seconds by start, to be added; the legend says of which start they are not known.
    """
    figure, panels = _figure(comparison, titles or tuple(metrics), metrics)
    counted = "pretraining and fine-tuning" if pretraining else "fine-tuning, without pretraining"
    for axes, lines in panels:
        timed = [_timed(line, pretraining) for line in lines]
        longest = max((seconds for _, times in timed for seconds in times), default=0.0)
        unit, length = _unit(longest)
        curves = [line.curve([seconds / length for seconds in times]) for line, times in timed]
        axes.set_xlabel(f"{unit} of {counted}")
        axes.set_xlim(0, 1.15 * longest / length or 1)
        _draw(axes, curves, is_joined=False)
        _name_fractions(axes, [line for line, _ in timed], curves)
    return _finished(figure)


def plot_history(
    records: Mapping[str, Sequence[ResultRecord]],
    task: str,
    colours: Mapping[str, str],
) -> Figure:
    """Draw AP over training iterations: a line per start, a band of one standard deviation over seeds.

    Args:
        records: of runs that were evaluated on their way, by start.
        task: "bbox" or "segm".
        colours: by start.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    curves = []
    for place, (start, found) in enumerate(records.items()):
        iterations = [record.iteration or 0 for record in found]
        values = pd.Series([record.metrics.get(task, {}).get("AP") or 0.0 for record in found])
        points = values.groupby(iterations).agg(["mean", "std"]).fillna(0.0)
        style = {"color": colours[start], "marker": MARKERS[place % len(MARKERS)]}
        curves.append(Curve(start, [*points.index], [*points["mean"]], [*points["std"]], style))
    axes.set_xlabel("fine-tuning iteration")
    axes.set_ylabel(f"{TASKS[task]} AP")
    _draw(axes, curves)
    axes.set_xlim(0, None)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return _finished(figure)


class Point(NamedTuple):
    """A metric with one part of the labels, over seeds; NaN for a time that is not known."""

    fraction: float
    seconds: float
    mean: float
    deviation: float


class Curve(NamedTuple):
    """A line of a plot."""

    name: str
    x: list[float]
    mean: list[float]
    deviation: list[float]
    style: dict[str, Any]


class Line(NamedTuple):
    """The points of one start under one protocol, and how they look."""

    start: str
    label: str
    style: dict[str, Any]
    points: list[Point]

    def curve(self, x: list[float]) -> Curve:
        """Return the points at these places."""
        mean = [point.mean for point in self.points]
        return Curve(self.label, x, mean, [point.deviation for point in self.points], self.style)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the file's suffix; the same figure gives the same bytes.

    Raises:
        UserError: there is no such format.
    """
    dates = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    if path.suffix not in dates:
        raise UserError(
            f"Pictures are written as {', '.join(dates)}, and {path} ends on none of these."
        )
    with replacing(path) as unfinished, rc_context({"svg.hashsalt": "virtex_det"}):
        figure.savefig(unfinished, format=path.suffix[1:], dpi=150, metadata=dates[path.suffix])


def spread_out(places: Sequence[float], heights: Sequence[float], top: float) -> list[float]:
    """Move labels up and down just as far as it takes that none covers another.

    Args:
        places: where the middle of each would best be, ascending.
        heights: of the labels.
        top: the upper edge of the last one at most; those below give way.

    Example:
        >>> spread_out([1.0, 1.0, 5.0], [2.0, 2.0, 2.0], 6.0)
        [1.0, 3.0, 5.0]
    """
    moved = list(places)
    for lower, upper in zip(range(len(moved)), range(1, len(moved)), strict=False):
        moved[upper] = max(moved[upper], moved[lower] + (heights[lower] + heights[upper]) / 2)
    if moved:
        moved[-1] = min(moved[-1], top - heights[-1] / 2)
    for upper in range(len(moved) - 1, 0, -1):
        moved[upper - 1] = min(
            moved[upper - 1], moved[upper] - (heights[upper - 1] + heights[upper]) / 2
        )
    return moved


def _figure(
    comparison: Comparison, titles: Sequence[str], metrics: Metrics
) -> tuple[Figure, list[tuple[Axes, list[Line]]]]:
    summary = summarize(comparison, {title: metrics[title] for title in titles})
    panels = [_lines(comparison, summary.loc[title]) for title in titles]
    many = max((len(lines) for lines in panels), default=0)
    height = max(SIZE[1], many * TYPE_SIZE * _LINE_HEIGHT / 72 + 1)
    figure = Figure(figsize=(SIZE[0] * len(titles), height), layout="constrained")
    axes = figure.subplots(1, len(titles), squeeze=False)[0]
    for axis, title in zip(axes, titles, strict=True):
        axis.set_ylabel(in_plot(title))
    return figure, list(zip(axes, panels, strict=True))


def _finished(figure: Figure) -> Figure:
    """Give a figure its colours, sizes of type and grid, and its curves their names."""
    figure.set_facecolor(LIGHT.ground)
    for axes in figure.axes:
        axes.set_facecolor(LIGHT.ground)
        axes.set_ylim(0, max(axes.get_ylim()[1], 1.0))
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(LIGHT.soft)
        axes.grid(axis="y", color=LIGHT.line, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(color=LIGHT.soft, labelcolor=LIGHT.ink, labelsize=TYPE_SIZE, length=3)
        axes.tick_params(axis="y", length=0)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(color=LIGHT.ink, fontsize=TYPE_SIZE)
    for number, axes in enumerate(figure.axes):
        if len(axes.lines) > MOST_IN_LEGEND:
            _name_lines(figure, axes)
        elif number == 0 and axes.lines:
            axes.legend(
                frameon=False,
                fontsize=TYPE_SIZE,
                labelcolor=LIGHT.ink,
                handlelength=1.6,
                borderaxespad=0,
            )
    return figure


def _lines(comparison: Comparison, part: pd.DataFrame) -> list[Line]:
    colours = start_colours(comparison)
    lines = []
    known = part.dropna(subset="mean").fillna({"deviation": 0.0})
    for (protocol, start), found in known.groupby(["protocol", "start"], sort=False, observed=True):
        columns = (
            found.index.get_level_values("fraction"),
            *(found[name] for name in Point._fields[1:]),
        )
        style = {
            "color": colours[start],
            "marker": MARKERS[comparison.starts.index(start) % len(MARKERS)],
            "linestyle": STYLES[comparison.protocols.index(protocol) % len(STYLES)],
        }
        label = f"{start}, {protocol}" if len(comparison.protocols) > 1 else start
        lines.append(Line(start, label, style, list(map(Point, *columns))))
    return lines


def _timed(line: Line, pretraining: Mapping[str, float] | None) -> tuple[Line, list[float]]:
    """Return the points whose time is known, and the seconds of each."""
    before = (pretraining or {}).get(line.start)
    is_known = pretraining is None or before is not None
    label = line.label if is_known else f"{line.label} (without pretraining)"
    points = [point for point in line.points if not math.isnan(point.seconds)]
    return line._replace(points=points, label=label), [
        (before or 0.0) + point.seconds for point in points
    ]


def _unit(longest: float) -> tuple[str, float]:
    """Return the unit for times up to this many seconds, and its own length in seconds."""
    if longest < 120:
        return "seconds", 1.0
    return ("minutes", 60.0) if longest < 3 * 3600 else ("hours", 3600.0)


def _draw(axes: Axes, curves: Sequence[Curve], *, is_joined: bool = True) -> None:
    """Draw lines with bands, or points with bars; without either where there are too many."""
    has_spread = len(curves) <= MOST_IN_LEGEND
    for curve in curves:
        width, size = (1.6, 4.5) if is_joined else (0.7, 6.5)
        axes.plot(
            curve.x,
            curve.mean,
            label=in_plot(curve.name),
            markersize=size,
            linewidth=width,
            **curve.style,
        )
        if not has_spread or not curve.x:
            continue
        if is_joined:
            low = [
                mean - deviation
                for mean, deviation in zip(curve.mean, curve.deviation, strict=True)
            ]
            high = [
                mean + deviation
                for mean, deviation in zip(curve.mean, curve.deviation, strict=True)
            ]
            axes.fill_between(
                curve.x, low, high, color=curve.style["color"], alpha=0.15, linewidth=0
            )
        else:
            colour = curve.style["color"]
            axes.errorbar(
                curve.x, curve.mean, curve.deviation, fmt="none", ecolor=colour, elinewidth=1.2
            )


def _name_fractions(axes: Axes, lines: Sequence[Line], curves: Sequence[Curve]) -> None:
    """Write beside points which part of the labels they are: beside all if few, else the ends of the best line."""
    pairs = [(line, curve) for line, curve in zip(lines, curves, strict=True) if curve.x]
    are_few = sum(len(curve.x) for _, curve in pairs) <= _FEW_POINTS
    if not are_few:
        pairs = [max(pairs, key=lambda pair: max(pair[1].mean))]
    for line, curve in pairs:
        points = list(zip(line.points, curve.x, strict=True))
        for point, x in points if are_few else dict.fromkeys([points[0], points[-1]]):
            axes.annotate(
                share(point.fraction),
                (x, point.mean),
                (7 if are_few else -7, 0),
                textcoords="offset points",
                ha="left" if are_few else "right",
                va="center",
                fontsize=TYPE_SIZE * 0.9,
                color=LIGHT.soft,
            )


def _name_lines(figure: Figure, axes: Axes) -> None:
    """Write the name of each line to the right of the plot, as near to the height of its end as the others allow."""
    figure.draw_without_rendering()
    unit = axes.get_ylim()[1] / (
        axes.bbox.height * 72 / figure.dpi
    )  # of the axis, per point of type
    drawn = [line for line in axes.lines if np.size(line.get_xdata())]
    ends = sorted([(np.asarray(line.get_xydata())[-1], line) for line in drawn], key=_height)
    names = [_in_lines(str(line.get_label())) for _, line in ends]
    heights = [(name.count("\n") + 1) * TYPE_SIZE * _LINE_HEIGHT * unit for name in names]
    places = spread_out([float(end[1]) for end, _ in ends], heights, axes.get_ylim()[1])
    for (end, line), name, place in zip(ends, names, places, strict=True):
        axes.annotate(
            name,
            (end[0], end[1]),
            (1.05, place),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=TYPE_SIZE,
            linespacing=1.0,
            color=LIGHT.ink,
            arrowprops={
                "arrowstyle": "-",
                "color": line.get_color(),
                "linewidth": 1,
                "shrinkA": 1,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )


def _height(end: tuple[np.ndarray, Line2D]) -> float:
    return float(end[0][1])


def _in_lines(name: str) -> str:
    """Break a name into lines that fit beside a plot; of one that is too long the middle is left out."""
    room = _NAME_WIDTH * _NAME_LINES - 4
    name = name.replace(r"\$", "$")  # escaped again below: no line may end between the two
    if len(name) > room:
        name = f"{name[: room // 2]}…{name[-room // 2 :]}"
    return "\n".join(textwrap.wrap(name, _NAME_WIDTH)[: _NAME_LINES + 1]).replace("$", r"\$")
