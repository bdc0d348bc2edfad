"""MODEL_ZOO.md, made from the catalogue, the known formats and the records of runs, and from nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from virtex_det.benchmark.records import ResultRecord, read_records
from virtex_det.checkpoint.formats import FORMATS
from virtex_det.model_zoo.catalog import Record, catalog

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "MODEL_ZOO.md"


def render(results: Path = ROOT / "results") -> str:
    """Return the page.

    Args:
        results: folder of run folders; their records become the table of our own results.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,  # Markdown
    )
    environment.filters["licence"] = lambda licence: licence or "not stated"
    families = [(family, list(members)) for family, members in groupby(catalog(), key=lambda record: record.family)]
    ours = [record for folder in sorted(results.glob("*")) for record in read_records(folder)]
    return environment.get_template("page.md.j2").render(
        records=catalog(),
        families=families,
        table=weights_table,
        sources=_sources,
        results=_results_table(ours),
        formats=_formats_table(),
    )


def weights_table(records: Sequence[Record]) -> str:
    """Return a Markdown table of records of one family; the digits after numbers refer to ``_sources``."""
    sources = _sources(records)
    rows = [
        {
            "name": f"[{record.name}]({record.urls[0]})" if record.urls else f"*[{record.name}]({record.page})*",
            "network": record.architecture,
            "pretraining": record.pretraining,
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
    return "; ".join(groups) or "-"


def _sources(records: Iterable[Record]) -> list[str]:
    return list(dict.fromkeys(source for record in records for source in record.numbers))


def _results_table(records: Sequence[ResultRecord]) -> str:
    rows = [
        {
            "weights": record.weights.get("path", "") or "random init",
            "protocol": record.protocol,
            "dataset": record.dataset,
            "labels": f"{record.train_fraction:.0%}",
            "seed": record.seed,
            "box AP": record.metrics.get("bbox", {}).get("AP"),
            "mask AP": record.metrics.get("segm", {}).get("AP"),
            "code": record.code_revision,
        }
        for record in records
    ]
    return _markdown(rows) if rows else ""


def _formats_table() -> str:
    rows = [{"family": f"`{entry.name}`", "from": entry.paper or "this package and Detectron2"} for entry in FORMATS]
    return _markdown(rows)


def _markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """Return a table without the padding that would change every line when one cell grows."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(map(_cell, row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
