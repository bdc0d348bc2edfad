from pathlib import Path

import pytest
import yaml

from virtex_det.benchmark.comparison import Cell, Comparison, read_comparison
from virtex_det.errors import UserError


@pytest.fixture
def comparison(make_record) -> Comparison:
    reached = {"random init": (4.0, 6.0), "captions": (10.0, 12.0)}
    records = {
        Cell(start, 0.1, seed): make_record(box_ap, box_ap / 2, seed=seed)
        for start, values in reached.items()
        for seed, box_ap in enumerate(values)
    }
    return Comparison("What captions are worth", records)


def test_a_row_per_start_in_the_order_given_and_the_best_is_bold(comparison):
    head, _, random, captions = comparison.table().splitlines()
    assert head == "| start | Box AP, 10% of the labels | Mask AP, 10% of the labels |"
    assert random == "| random init | 5.0 ± 1.4 | 2.5 ± 0.7 |"
    assert captions == "| captions | **11.0 ± 1.4** | **5.5 ± 0.7** |"


def test_fractions_stand_side_by_side_from_few_labels_to_many(make_record):
    records = {Cell("random init", fraction, 0): make_record(10 * fraction) for fraction in (1.0, 0.1)}
    head = Comparison("", records).table().splitlines()[0]
    assert head.index("10% of") < head.index("100% of")


def test_an_ap_that_is_not_defined_counts_as_nothing_found(make_record):
    table = Comparison("", {Cell("random init", 0.1, 0): make_record(5.0, None)}).table()
    assert table.splitlines()[-1] == "| random init | **5.0** | **0.0** |"


def test_the_page_is_the_same_from_the_written_records(comparison, tmp_path):
    comparison.write_records(tmp_path / "page.jsonl")
    again = read_comparison(comparison.title, tmp_path / "page.jsonl")
    assert again.page("the command") == comparison.page("the command")
    assert "the command" in again.page("the command") and comparison.table() in again.page("")


@pytest.mark.parametrize("content", ['{"cell": {', '{"cell": {"start": "a"}, "record": {}}', "[]"])
def test_a_line_that_is_no_record_is_named(tmp_path, content):
    (tmp_path / "page.jsonl").write_text(content)
    with pytest.raises(UserError, match="line 1"):
        read_comparison("", tmp_path / "page.jsonl")


def test_records_that_are_not_there_are_an_error_of_one_line(tmp_path):
    with pytest.raises(UserError, match="There are no records"):
        read_comparison("", tmp_path / "page.jsonl")


def test_the_committed_page_is_what_its_records_give():
    root = Path(__file__).resolve().parents[2]
    matrix = "configs/benchmarks/scenes_methods.yaml"
    title = yaml.safe_load((root / matrix).read_text())["title"]
    comparison = read_comparison(title, root / "docs" / "scenes_methods.jsonl")
    page = (root / "docs" / "scenes_methods.md").read_text()
    assert page == comparison.page(f"python tools/benchmark.py run {matrix}")
