"""The tables of the report as data: what each cell says, and the number that it is sorted by."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from virtex_det.benchmark.comparison import Comparison
from virtex_det.benchmark.conditions import Cost, duration
from virtex_det.benchmark.published import PublishedResult, published_for
from virtex_det.benchmark.records import ResultRecord
from virtex_det.benchmark.rows import TASKS, Row, reached, rows, share
from virtex_det.benchmark.statistics import PairedTest

COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
MAX_CATEGORIES = 100


class Value(NamedTuple):
    """One cell: what it is sorted by (None goes last), what it says, whether it is the best on equal labels."""

    number: float | None = None
    text: str = "–"
    is_best: bool = False


def tasks_of(comparison: Comparison) -> list[str]:
    """Return the tasks that were measured, "bbox" before "segm"."""
    return [task for task in TASKS if any(task in record.metrics for record in comparison.records.values())]


def result_tables(comparison: Comparison, protocol: str) -> dict[str, Any]:
    """Return the tables of one protocol: AP by start and fraction, every metric by row, what others published."""
    tasks, recipes = tasks_of(comparison), comparison.recipes(protocol)
    several = len(comparison.fractions) > 1
    of_task = {task: _rows_of(comparison, protocol, task) for task in tasks}
    return {
        "name": protocol,
        "recipes": recipes,
        "grids": [_grid(TASKS[task], found) for task, found in of_task.items()] if several else [],
        "reaches": [reached(comparison, protocol, f"{TASKS[task]} AP", (task, "AP")) for task in tasks]
        if several
        else [],
        "tables": [_details(TASKS[task], found, comparison.baseline) for task, found in of_task.items()],
        "published": _published([result for recipe in recipes for result in published_for(recipe)]),
    }


def category_tables(comparison: Comparison) -> dict[str, Any] | None:
    """Return AP by category under each start, at the largest fraction of the first protocol."""
    protocol, fraction = comparison.protocols[0], comparison.fractions[-1]
    runs = {start: list(comparison.runs(start, protocol, fraction).values()) for start in comparison.starts}
    runs = {start: found for start, found in runs.items() if found}
    tables = {task: _by_category(runs, task) for task in tasks_of(comparison)}
    if not any(tables.values()):
        return None
    return {
        "where": f"{share(fraction)} of the labels" + (f", {protocol}" if len(comparison.protocols) > 1 else ""),
        "starts": [*runs],
        "tables": [{"title": f"{TASKS[task]} AP"} | _widest(table) for task, table in tables.items() if table],
    }


def cost_table(costs: Mapping[str, Cost]) -> dict[str, list[Value]]:
    """Return by start what pretraining and a fine-tune took."""
    table = {}
    for start, cost in costs.items():
        times = f", {cost.times} times" if cost.times > 1 else ""
        pretraining = _time(cost.pretraining, times) if cost.times else Value(0.0, "none")
        table[start] = [pretraining, _time(cost.finetuning)]
    return table


def _time(seconds: float | None, more: str = "") -> Value:
    return Value(None, "not known") if seconds is None else Value(seconds, duration(seconds) + more)


def _rows_of(comparison: Comparison, protocol: str, task: str) -> list[Row]:
    found = rows(comparison, {name: (task, name) for name in COLUMNS})
    return sorted((row for row in found if row.protocol == protocol), key=lambda row: row.fraction)


def _grid(title: str, found: Sequence[Row]) -> dict[str, Any]:
    """Return AP with a row per start and a column per fraction."""
    fractions = sorted({row.fraction for row in found})
    by_place = {(row.start, row.fraction): _value(row, "AP", found) for row in found}
    starts = dict.fromkeys(row.start for row in found)
    lines = {start: [by_place.get((start, fraction), Value()) for fraction in fractions] for start in starts}
    return {"title": f"{title} AP", "columns": [share(fraction) for fraction in fractions], "rows": lines}


def _details(title: str, found: Sequence[Row], baseline: str) -> dict[str, Any]:
    """Return every metric with a row per fraction and start, and the paired test of AP against the baseline."""
    columns = [name for name in COLUMNS if any(row.spreads[name] is not None for row in found)]
    lines = []
    for row in found:
        values = [_value(row, name, found) for name in columns]
        lines.append((row, share(row.fraction), [*values, *(_test(row.tests["AP"]) if baseline else [])]))
    return {"title": f"{title} metrics", "columns": [*columns, *(["ΔAP", "p"] if baseline else [])], "rows": lines}


def _value(row: Row, name: str, found: Sequence[Row]) -> Value:
    spread = row.spreads[name]
    if spread is None:
        return Value()
    rivals = [other.spreads[name] for other in found if other.fraction == row.fraction]
    best = max(rival.mean for rival in rivals if rival is not None)
    return Value(spread.mean, str(spread), len(rivals) > 1 and spread.mean == best)


def _test(test: PairedTest | None) -> list[Value]:
    if test is None:
        return [Value(), Value()]
    difference = Value(test.difference, f"{test.difference:+.1f}")
    if test.p_value is None:
        return [difference, Value()]
    return [difference, Value(test.p_value, f"{test.p_value:.2g}" if test.p_value >= 1e-4 else "< 0.0001")]


def _published(results: Sequence[PublishedResult]) -> dict[str, Any] | None:
    if not results:
        return None
    names = [(task, name) for task in TASKS for name in COLUMNS]
    columns = [(task, name) for task, name in names if any(name in r.metrics.get(task, {}) for r in results)]
    lines = [(r, [_plain(r.metrics.get(task, {}).get(name)) for task, name in columns]) for r in results]
    return {"columns": [f"{TASKS[task]} {name}" for task, name in columns], "rows": lines}


def _plain(number: float | None) -> Value:
    return Value() if number is None else Value(number, f"{number:.1f}")


def _by_category(runs: Mapping[str, Iterable[ResultRecord]], task: str) -> dict[str, list[float | None]]:
    """Return by category the mean over seeds under each start; None where it is defined in no seed."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for start, records in runs.items():
        for record in records:
            for name, value in record.metrics.get(task, {}).items():
                if name.startswith("AP-") and value is not None:
                    found[name.removeprefix("AP-")][start].append(value)
    return {name: [fmean(by[start]) if start in by else None for start in runs] for name, by in found.items()}


def _widest(table: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    """Keep the categories in which the starts differ most, where there are many."""
    known = {name: [value for value in values if value is not None] for name, values in table.items()}
    order = sorted(table, key=lambda name: min(known[name]) - max(known[name]))
    kept = set(order[:MAX_CATEGORIES])
    shown = {name: values for name, values in table.items() if name in kept}
    top = max(value for name in shown for value in known[name])
    return {"rows": shown, "top": top or 1.0, "left_out": len(table) - len(shown)}
