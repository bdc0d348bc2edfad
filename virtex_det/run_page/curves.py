"""The curves of a run: its losses, its rate, and what evaluations in training measured."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from virtex_det.benchmark.plots import MARKERS, SIZE, as_picture, finished
from virtex_det.benchmark.records import ResultRecord
from virtex_det.benchmark.tables import title_of
from virtex_det.escaping import in_plot
from virtex_det.pages.theme import line_colours
from virtex_det.text_files import read_bytes

METRICS = "metrics.json"
TOTAL = "total_loss"
_MOST_POINTS = 400  # of a curve: more than a plot has pixels for
_MOST_LOSSES = 10  # colours of the palette


class Series(NamedTuple):
    """A value over the iterations of a run. # shape: both (N,)"""

    iterations: np.ndarray
    values: np.ndarray

    def thinned(self) -> "Series":
        """Return at most ``_MOST_POINTS`` points, each the mean of its neighbours."""
        parts = min(len(self.values), _MOST_POINTS)
        iterations, values = (np.array_split(column, parts) for column in self)
        return Series(
            np.array([part[-1] for part in iterations]), np.array([part.mean() for part in values])
        )


def read_series(run_folder: str | Path) -> dict[str, Series]:
    """Return what a run logged, by name; empty without ``metrics.json``.

    Lines that a crash left half-written, and values that are not finite numbers, are left out.
    """
    path = Path(run_folder) / METRICS
    if not path.is_file():
        return {}
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for line in read_bytes(path).splitlines():
        try:
            row = json.loads(line)
            done = int(row["iteration"]) + 1
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
        for name, value in row.items():
            if name != "iteration" and isinstance(value, float | int) and math.isfinite(value):
                found[name][done] = float(value)
    return {
        name: Series(np.array([*values]), np.array([*values.values()]))
        for name, values in found.items()
    }


def draw_curves(
    series: Mapping[str, Series], records: Sequence[ResultRecord]
) -> list[dict[str, str]]:
    """Draw losses, learning rate, and metrics of evaluations in training, as far as there are any.

    Args:
        series: of ``read_series``.
        records: of the run.

    Returns:
        Plots with a title, for ``render_html``.
    """
    losses = {name: series[name] for name in _losses(series)}
    drawn = []
    if losses:
        drawn.append(as_picture(_plot(losses, "loss", baseline=TOTAL), "Losses of training"))
    if "lr" in series:
        rate = {"learning rate": series["lr"]}
        drawn.append(as_picture(_plot(rate, "learning rate"), "Learning rate"))
    for dataset, measured in _measured(records).items():
        plot = _plot(measured, "%", marked=True)
        drawn.append(as_picture(plot, f"Evaluations on {dataset}"))
    return drawn


def _losses(series: Mapping[str, Series]) -> list[str]:
    """Return the names of losses; the total stands alone if it is one loss or very many."""
    parts = [name for name in series if name.startswith("loss") or name.endswith("_loss")]
    parts = [name for name in parts if name != TOTAL]
    total = [TOTAL] if TOTAL in series else []
    return total + (sorted(parts) if 1 < len(parts) <= _MOST_LOSSES or not total else [])


def _measured(records: Sequence[ResultRecord]) -> dict[str, dict[str, Series]]:
    """Return the main metrics of the model in training, by data set and title."""
    values: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        if record.evaluated or record.iteration is None:
            continue
        for task, numbers in record.metrics.items():
            name = "AP" if "AP" in numbers else next(iter(numbers), "")
            if (value := numbers.get(name)) is not None:
                values[record.dataset][title_of(f"{task}/{name}")][record.iteration] = value
    return {
        dataset: {
            title: Series(np.array([*points]), np.array([*points.values()]))
            for title, points in of_set.items()
        }
        for dataset, of_set in values.items()
    }


def _plot(
    series: Mapping[str, Series], label: str, *, baseline: str = "", marked: bool = False
) -> Figure:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    colours = line_colours([*series], baseline)
    for place, (name, values) in enumerate(series.items()):
        x, y = values.thinned()
        # A line through one point cannot be seen.
        marker = MARKERS[place % len(MARKERS)] if marked or len(x) == 1 else ""
        axes.plot(
            x,
            y,
            label=in_plot(name),
            color=colours[name],
            marker=marker,
            markersize=4.5,
            linewidth=1.6,
        )
    axes.set_xlabel("iteration")
    axes.set_ylabel(in_plot(label))
    axes.set_xlim(0, None)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return finished(figure, least_top=0.0)
