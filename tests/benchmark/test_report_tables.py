import dataclasses

import pytest

from tests.benchmark.example_comparison import make_example
from virtex_det.benchmark import report_tables
from virtex_det.benchmark.comparison import Cell, Comparison
from virtex_det.benchmark.conditions import Cost
from virtex_det.benchmark.report_tables import Value, category_tables, cost_table, result_tables


@pytest.fixture
def comparison(tmp_path, make_record) -> Comparison:
    return make_example(tmp_path, make_record).comparison


def texts(values: list[Value]) -> list[str]:
    return [value.text for value in values]


def test_the_grid_has_a_row_per_start_and_a_column_per_fraction_and_the_best_is_bold(comparison):
    box, mask = result_tables(comparison, "scenes")["grids"]
    assert (box["title"], box["columns"]) == ("Box AP", ["10 %", "100 %"])
    assert {start: texts(values) for start, values in box["rows"].items()} == {
        "random": ["11.0 ± 0.7", "15.5 ± 0.7"],
        "captions": ["21.0 ± 0.7", "25.5 ± 0.7"],
    }
    assert [value.is_best for value in box["rows"]["random"] + box["rows"]["captions"]] == [False, False, True, True]
    assert mask["title"] == "Mask AP"


def test_one_fraction_needs_no_grid(tmp_path, make_record):
    comparison = make_example(tmp_path, make_record, fractions=(1.0,)).comparison
    assert result_tables(comparison, "scenes")["grids"] == []


def test_details_carry_seeds_and_the_test_against_the_baseline(comparison):
    box = result_tables(comparison, "scenes")["tables"][0]
    assert box["columns"] == ["AP", "AP50", "ΔAP", "p"]
    (random, labels, values), (captions, _, others), *_ = box["rows"]
    assert (random.start, captions.start, labels, captions.seeds) == ("random", "captions", "10 %", 2)
    assert texts(values)[-2:] == ["–", "–"] and values[-1].number is None
    assert others[-2] == Value(pytest.approx(10.0), "+10.0")


def test_without_a_baseline_there_is_no_test(comparison):
    comparison = dataclasses.replace(comparison, baseline="")
    assert result_tables(comparison, "scenes")["tables"][0]["columns"] == ["AP", "AP50"]


def test_metrics_that_no_run_has_get_no_column(comparison):
    mask = result_tables(comparison, "scenes")["tables"][1]
    assert "AP50" not in mask["columns"]


def test_published_numbers_stand_apart_with_their_source(comparison):
    records = {cell: dataclasses.replace(r, protocol="coco-segm-2x") for cell, r in comparison.records.items()}
    published = result_tables(Comparison("", "random", records), "scenes")["published"]
    assert published["columns"][0] == "Box AP"
    assert all(result.source and result.how_sure == "READ" for result, _ in published["rows"])
    assert result_tables(comparison, "scenes")["published"] is None


def test_categories_are_means_over_seeds_at_the_largest_fraction(comparison):
    tables = category_tables(comparison)
    assert tables["where"] == "100 % of the labels" and tables["starts"] == ["random", "captions"]
    box = tables["tables"][0]
    assert box["rows"]["square"] == [pytest.approx(15.5), pytest.approx(25.5)]
    assert box["top"] == pytest.approx(26.5) and box["left_out"] == 0


def test_a_category_that_one_start_alone_has_is_shown_with_a_gap(comparison):
    records = dict(comparison.records)
    for cell in [cell for cell in records if cell.start == "random"]:
        metrics = {"bbox": {"AP": 1.0, "AP-square": None}}
        records[cell] = dataclasses.replace(records[cell], metrics=metrics)
    (box, _) = category_tables(Comparison("", "random", records))["tables"]
    assert box["rows"]["square"] == [None, pytest.approx(25.5)]


def test_of_many_categories_those_are_kept_in_which_the_starts_differ_most(make_record, monkeypatch):
    monkeypatch.setattr(report_tables, "MAX_CATEGORIES", 1)
    reached = {"random": {"AP-a": 1.0, "AP-b": 5.0}, "captions": {"AP-a": 2.0, "AP-b": 9.0}}
    records = {
        Cell(start, "scenes", 1.0, 0): dataclasses.replace(make_record(), metrics={"bbox": {"AP": 1.0} | table})
        for start, table in reached.items()
    }
    (table,) = category_tables(Comparison("", "random", records))["tables"]
    assert [*table["rows"]] == ["b"] and table["left_out"] == 1


def test_without_categories_there_is_no_table(make_record):
    assert category_tables(Comparison("", "", {Cell("random", "scenes", 1.0, 0): make_record()})) is None


def test_costs_in_words_sort_by_seconds():
    table = cost_table({"random": Cost(0.0, 0, 30.0), "captions": Cost(600.0, 3, 30.0), "zoo": Cost(None, 1, None)})
    assert table["random"] == [Value(0.0, "none"), Value(30.0, "30 s")]
    assert table["captions"][0] == Value(600.0, "10.0 min, 3 times")
    assert table["zoo"] == [Value(None, "not known"), Value(None, "not known")]
