"""MODEL_ZOO.md, made from the catalogue, the known formats and the records of runs, and from nothing else."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from virtex_det.benchmark.comparison import read_comparison
from virtex_det.benchmark.records import ResultRecord
from virtex_det.benchmark.statistics import Spread, spread
from virtex_det.checkpoint.formats import FORMATS
from virtex_det.escaping import in_inline_code, in_markdown
from virtex_det.model_zoo.catalog import Record, catalog
from virtex_det.utils import render_markdown

PAGE = Path("MODEL_ZOO.md")  # in a clone
RESULTS = Path("results")
_OF_ADDRESSES = "/:?=&%#~+@!$,;*'"  # not the brackets, bars and blanks that would end a link or a cell


def render(results: Path = RESULTS) -> str:
    """Return the page.

    Args:
        results: folder of files that ``Comparison.write_records`` wrote; the table of our own results.
    """
    families = [(family, list(members)) for family, members in groupby(catalog(), key=lambda record: record.family)]
    return render_markdown(
        Path(__file__).with_name("page.md.j2"),
        records=catalog(),
        families=families,
        table=weights_table,
        sources=_sources,
        results=_results_table(results),
        formats=_formats_table(),
    )


def weights_table(records: Sequence[Record]) -> str:
    """Return a Markdown table of records of one family; the digits after numbers refer to ``_sources``."""
    sources = _sources(records)
    rows = [
        {
            "name": _link(record.name, record.urls[0]) if record.urls else f"*{_link(record.name, record.page)}*",
            "network": in_markdown(record.architecture),
            "pretraining": in_markdown(record.pretraining),
            "published": _numbers(record, sources),
            "sha256": {0: "-", 64: "whole"}.get(len(record.sha256 or ""), "first digits"),
        }
        for record in records
    ]
    return _markdown(rows)


def _numbers(record: Record, sources: Sequence[str]) -> str:
    groups = (
        ", ".join(f"{metric} {value}" for metric, value in metrics.items()) + f" ({sources.index(source) + 1})"
        for source, metrics in record.numbers.items()
    )
    return in_markdown("; ".join(groups)) or "-"


def _link(text: str, address: str) -> str:
    return f"[{in_markdown(text)}]({quote(address, safe=_OF_ADDRESSES)})"


def _sources(records: Iterable[Record]) -> list[str]:
    return list(dict.fromkeys(source for record in records for source in record.numbers))


def _results_table(folder: Path) -> str:
    """Return a Markdown table, a row for all seeds of a start, a protocol and a fraction; "" without records."""
    rows = []
    for path in sorted(folder.glob("[!.]*.jsonl")):
        comparison = read_comparison(path, mix=True)  # each row names its protocol
        alike = defaultdict(list)
        for cell, record in comparison.records.items():
            alike[cell.start, record.protocol, record.dataset, cell.fraction].append(record)
        rows += [_result(path, *row, records) for row, records in alike.items()]
    return _markdown(rows) if rows else ""


def _result(
    path: Path, start: str, protocol: str, dataset: str, fraction: float, records: Sequence[ResultRecord]
) -> dict[str, object]:
    return {
        "start": in_markdown(start),
        "protocol": in_inline_code(protocol),
        "data set": in_markdown(dataset),
        "labels": f"{100 * fraction:.4g}%",
        "seeds": len(records),
        "box AP": _spread(records, "bbox"),
        "mask AP": _spread(records, "segm"),
        "records": _link(path.stem, f"results/{path.name}"),
    }


def _spread(records: Sequence[ResultRecord], task: str) -> Spread | None:
    found = [record.metrics.get(task, {}).get("AP") for record in records]
    values = [value for value in found if value is not None]
    return spread(values) if values and len(values) == len(found) else None


def _formats_table() -> str:
    rows = [{"family": f"`{entry.name}`", "from": entry.paper or "this package and Detectron2"} for entry in FORMATS]
    return _markdown(rows)


def _markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """Return a table without the padding that would change every line when one cell grows."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(map(_cell, row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
