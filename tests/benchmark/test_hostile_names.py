"""Titles and names that would act on a page, through every page that a comparison makes."""

import base64
import csv
import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import pytest

from tests.benchmark.example_comparison import make_example
from tests.benchmark.matrices import compare, rendered
from tests.test_escaping import BLOCKS, NAMES, is_seen
from virtex_det.benchmark.comparison import Comparison, read_comparison
from virtex_det.benchmark.report import write_markdown_page, write_report
from virtex_det.benchmark.statistics import find_metrics
from virtex_det.errors import UserError

STARTS = [name for name in NAMES.values() if name and len(name) < 1000]
TITLE = "".join(STARTS)


@pytest.fixture
def comparison(make_record) -> Comparison:
    """Names that would act, as starts, protocol, data set, categories, machine and title."""
    scores = {(start, 0.1): (4.0, 6.0) for start in ("random", *STARTS)}
    plain = compare(make_record, scores, protocol="scenes <b>x</b>\n# y").records
    records = {
        cell: dataclasses.replace(
            record,
            dataset=TITLE,
            empty_categories=tuple(STARTS),
            code_revision=TITLE,
            hardware={"cpu": TITLE, "cores": TITLE, "gpu": TITLE},
        )
        for cell, record in plain.items()
    }
    return Comparison(TITLE, "random", records)


class Tags(HTMLParser):
    """The tags of a page and what they run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.found.append((tag, dict(attributes)))


def tags_of(html: str) -> list[tuple[str, dict]]:
    parser = Tags()
    parser.feed(html)
    return parser.found


def test_each_table_has_its_lines_and_no_more(comparison):
    texts = {style: rendered(comparison, style=style) for style in ("markdown", "csv", "latex")}
    # Two tables of means, with all starts, and two of differences from one of them.
    starts = 1 + len(STARTS)
    rows = [line for line in texts["markdown"].splitlines() if line.startswith("| ")]
    assert len(rows) == 2 * (2 + starts) + 2 * (1 + starts)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)
    lines = list(csv.reader(io.StringIO(texts["csv"])))
    assert len(lines) == 1 + starts and len({len(line) for line in lines}) == 1
    ends = [line for line in texts["latex"].splitlines() if line.endswith(r" \\")]
    assert len(ends) == 2 * (1 + starts) + 2 * starts
    assert all(map(is_seen, texts.values()))


def test_the_markdown_page_and_its_curves_are_text(comparison, tmp_path):
    markdown_it = pytest.importorskip("markdown_it")
    cards = {TITLE: {TITLE: TITLE}}
    write_markdown_page(
        tmp_path / "page (1).md",
        comparison,
        cards=cards,
        commands=[TITLE, "```", "<script>x</script>"],
        metrics=find_metrics(comparison),
    )
    text = (tmp_path / "page (1).md").read_text()
    assert is_seen(text)
    html = (
        markdown_it.MarkdownIt("commonmark", {"html": True})
        .enable(["table", "strikethrough"])
        .render(text)
    )
    found = {tag for tag, _ in tags_of(html)}
    assert found <= {*BLOCKS, "h2", "strong", "br", "img", "pre", "code"}, found
    assert [attributes["src"] for tag, attributes in tags_of(html) if tag == "img"] == [
        "page%20%281%29.svg"
    ]
    assert html.count("<h1>") == 1
    svg = (tmp_path / "page (1).svg").read_text()
    assert "<script" not in svg.lower() and "onload" not in re.sub(
        "<!--.*?-->", "", svg, flags=re.DOTALL
    )


def test_the_report_runs_its_own_script_alone(make_record, tmp_path):
    starts = ("random", *STARTS[::4])
    found = make_example(tmp_path, make_record, starts=starts, seeds=(0,), fractions=(0.1, 1.0))
    annotations = json.loads(found.annotations.read_text())
    for category, name in zip(annotations["categories"], STARTS, strict=False):
        category["name"] = name
    found.annotations.write_text(json.dumps(annotations))
    write_report(
        tmp_path / "index.html",
        dataclasses.replace(found.comparison, title=TITLE),
        folders=found.folders,
        annotations=found.annotations,
        image_root=found.image_root,
        cards={TITLE: {TITLE: TITLE}},
        commands={TITLE: [TITLE]},
        notes=[TITLE],
    )
    html = (tmp_path / "index.html").read_text()
    assert is_seen(html)
    tags = tags_of(html)
    assert [tag for tag, _ in tags].count("script") == 1
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert all(
        attributes["src"].startswith("data:image/") for tag, attributes in tags if tag == "img"
    )
    assert all(
        attributes["href"].startswith(("#", "data:,"))
        for _, attributes in tags
        if "href" in attributes
    )
    for source in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", html):
        assert "<script" not in base64.b64decode(source).decode().lower()


def test_records_with_such_names_are_written_and_read_again(comparison, tmp_path):
    comparison.write_records(tmp_path / "records.jsonl")
    assert read_comparison(tmp_path / "records.jsonl").records == comparison.records


@pytest.mark.parametrize(
    "change",
    [
        {"cell": []},
        {"cell": {"start": ["x"], "protocol": "p", "fraction": 0.1, "seed": 0}},
        {"cell": {"start": "x", "protocol": {}, "fraction": 0.1, "seed": 0}},
        {"cell": {"start": "x", "protocol": "p", "fraction": "0.1", "seed": 0}},
        {"cell": {"start": "x", "protocol": "p", "fraction": 0.1, "seed": 0, "more": 1}},
        {"record": None},
        {"record": {}},
        {"metrics": []},
        {"metrics": {"bbox": 3}},
        {"metrics": {"bbox": {"AP": "<b>"}}},
        {"metrics": {"bbox": {"AP": [1]}}},
        {"dataset": {"a": 1}},
        {"dataset_version": {}},
        {"dataset_version": {"images": 1, "sha256": 3}},
        {"train_versions": {"a": 3}},
        {"train_datasets": "abc"},
        {"empty_categories": [[]]},
        {"hardware": []},
        {"weights": {"path": {}}},
        {"seed": "0"},
        {"train_fraction": "0.1"},
        {"training_seconds": "long"},
        {"created": 3},
    ],
    ids=str,
)
def test_a_record_with_fields_of_another_kind_is_refused(make_record, tmp_path, change):
    line = {"cell": {"start": "x", "protocol": "p", "fraction": 0.1, "seed": 0}, "record": {}}
    wrong = {} if {"cell", "record"} & set(change) else change
    line["record"] = dataclasses.asdict(dataclasses.replace(make_record(), **wrong))
    line |= change if not wrong else {}
    (tmp_path / "records.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=r"records.jsonl, line 1"):
        read_comparison(tmp_path / "records.jsonl")


@pytest.mark.parametrize("text", ["[" * 100_000, "\0", "{}", "3", '{"cell": 3}', "\udcff", ""])
def test_a_file_that_holds_no_records_is_refused(tmp_path, text):
    (tmp_path / "records.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match="records.jsonl"):
        read_comparison(tmp_path / "records.jsonl")
