"""MODEL_ZOO.md, made only from the catalogue, the known formats and the records of runs."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from math import isnan
from pathlib import Path
from urllib.parse import quote

from virtex_det.benchmark.comparison import read_comparison
from virtex_det.benchmark.statistics import AP, spread
from virtex_det.benchmark.tables import Table, Value, markdown_grid, mean
from virtex_det.checkpoint.formats import FORMATS
from virtex_det.escaping import Markdown, in_inline_code, in_markdown
from virtex_det.model_zoo.catalog import CATALOG, Record, read_catalog
from virtex_det.utils import fill_template

PAGE = Path("MODEL_ZOO.md")  # in a clone
RESULTS = Path("results")
NOTHING = Markdown("-")
ROW = ["start", "recipe", "dataset", "fraction"]
# Characters that stay as they are; brackets, bars and blanks would end a link or a cell.
_OF_ADDRESSES = "/:?=&%#~+@!$,;*'"


def render(results: Path = RESULTS) -> str:
    """Return the page.

    Args:
        results: folder of files of ``Comparison.write_records``, for the table of this package's
            results.
    """
    records = read_catalog(CATALOG)  # of the package alone
    families = [
        (family, list(members))
        for family, members in groupby(records, key=lambda record: record.family)
    ]
    return fill_template(
        Path(__file__).with_name("page.md.j2"),
        records=records,
        families=families,
        table=weights_table,
        sources=_sources,
        results=_results_table(results),
        formats=_formats_table(),
    )


def weights_table(records: Sequence[Record]) -> str:
    """Return a Markdown table of a family's records; digits after numbers refer to ``_sources``."""
    sources = _sources(records)
    rows = []
    for record in records:
        name = (
            _link(record.name, record.urls[0])
            if record.urls
            else f"*{_link(record.name, record.page)}*"
        )
        known = {0: NOTHING, 64: "whole"}.get(len(record.sha256 or ""), "first digits")
        texts = [
            Markdown(name),
            record.architecture,
            record.pretraining,
            _numbers(record, sources),
            known,
        ]
        rows.append([Value(text) for text in texts])
    return markdown_grid(Table("", ["name", "network", "pretraining", "published", "sha256"], rows))


def _numbers(record: Record, sources: Sequence[str]) -> str:
    groups = (
        ", ".join(f"{metric} {value}" for metric, value in metrics.items())
        + f" ({sources.index(source) + 1})"
        for source, metrics in record.numbers.items()
    )
    return "; ".join(groups) or NOTHING


def _link(text: str, address: str) -> Markdown:
    return Markdown(f"[{in_markdown(text)}]({quote(address, safe=_OF_ADDRESSES)})")


def _sources(records: Iterable[Record]) -> list[str]:
    return list(dict.fromkeys(source for record in records for source in record.numbers))


def _results_table(folder: Path) -> str:
    """Return a Markdown table with a row per start, protocol and fraction; "" without records.

    Records of SVMs, which have neither box nor mask AP, have no row.
    """
    rows = []
    for path in sorted(folder.glob("[!.]*.jsonl")):
        # Protocols may be mixed, since each row names its own.
        frame = read_comparison(path, mix=True).frame
        scores = frame[frame["metric"].isin(AP)].dropna(subset="value")
        for (start, protocol, dataset, fraction), runs in scores.groupby(
            ROW, sort=False, observed=True
        ):
            spreads = spread(runs.groupby("metric")["value"]).reindex(AP)
            values = [Value(text) for text in (start, Markdown(in_inline_code(protocol)), dataset)]
            values += [Value(f"{100 * fraction:.4g}%"), Value(str(runs["seed"].nunique()))]
            values += [
                Value(NOTHING) if isnan(cell.mean) else mean(cell) for cell in spreads.itertuples()
            ]
            rows.append([*values, Value(_link(path.stem, f"results/{path.name}"))])
    columns = ["start", "protocol", "data set", "labels", "seeds", "box AP", "mask AP", "records"]
    return markdown_grid(Table("", columns, rows)) if rows else ""


def _formats_table() -> str:
    rows = []
    for entry in FORMATS:
        rows.append(
            [
                Value(Markdown(f"`{entry.name}`")),
                Value(entry.paper or "this package and Detectron2"),
            ]
        )
    return markdown_grid(Table("", ["family", "from"], rows))
