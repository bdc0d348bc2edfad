import dataclasses
from pathlib import Path

import pytest

from virtex_det.benchmark.comparison import Cell, Comparison
from virtex_det.errors import UserError
from virtex_det.model_zoo import page
from virtex_det.model_zoo.catalog import catalog

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_in_the_repository_is_what_the_catalogue_gives():
    assert page.render(ROOT / "results") == (ROOT / page.PAGE).read_text(), (
        "stale; run: python tools/model_zoo.py page"
    )


def test_every_record_is_on_the_page():
    text = page.render()
    assert all(f"[{record.name}](" in text for record in catalog())


def test_every_published_number_is_on_the_page():
    text = page.render()
    numbers = [
        f"{m} {v}"
        for record in catalog()
        for group in record.numbers.values()
        for m, v in group.items()
    ]
    assert all(number in text for number in numbers)


@pytest.fixture
def results(tmp_path, make_record):
    """A folder with the records of two starts, two fractions and two seeds."""
    records = {
        Cell(start, "1x", fraction, seed): dataclasses.replace(
            make_record(box_ap + 2 * seed, mask_ap, seed=seed, fraction=fraction),
            **{"dataset": "coco_2017_val", "protocol": "coco-segm-1x"},
        )
        for start, box_ap, mask_ap in (("random", 20.0, 18.0), ("captions", 30.0, None))
        for fraction in (0.01, 1.0)
        for seed in (0, 1)
    }
    (tmp_path / "results").mkdir()
    Comparison("how much a start is worth", "random", records).write_records(
        tmp_path / "results" / "starts.jsonl"
    )
    return tmp_path / "results"


def rows_of(text):
    return [
        line
        for line in text.partition("## Results of this package")[2].splitlines()
        if "starts.jsonl" in line
    ]


def test_own_results_are_mean_and_spread_over_the_seeds_of_the_records(results):
    link = "[starts](results/starts.jsonl)"
    assert rows_of(page.render(results)) == [
        f"| random | `coco-segm-1x` | coco_2017_val | 1% | 2 | 21.0 ± 1.4 | 18.0 ± 0.0 | {link} |",
        f"| random | `coco-segm-1x` | coco_2017_val | 100% | 2 | 21.0 ± 1.4 | 18.0 ± 0.0 | {link} "
        "|",
        f"| captions | `coco-segm-1x` | coco_2017_val | 1% | 2 | 31.0 ± 1.4 | 0.0 ± 0.0 | {link} |",
        "| captions | `coco-segm-1x` | coco_2017_val | 100% | 2 | 31.0 ± 1.4 | 0.0 ± 0.0 | "
        f"{link} |",
    ]


def test_a_metric_without_values_is_a_dash(results, make_record):
    records = {Cell("random", "1x", 0.1, 0): make_record(mask_ap=None)}
    Comparison("boxes", "", records).write_records(results / "starts.jsonl")
    assert [row.split(" | ")[-3:-1] for row in rows_of(page.render(results))] == [["10.0", "-"]]


def test_svms_beside_detectors_have_no_row_of_dashes(results, make_record):
    svm = dataclasses.replace(make_record(), protocol="svm", metrics={"svm": {"mAP": 30.0}})
    records = {Cell("random", "1x", 0.1, 0): make_record(), Cell("random", "svm", 0.1, 0): svm}
    Comparison("both", "", records, mix=True).write_records(results / "starts.jsonl")
    [row] = rows_of(page.render(results))
    assert "`scenes-segm`" in row


def test_each_protocol_has_its_own_row(results, make_record):
    records = {
        Cell("random", name, 0.1, 0): dataclasses.replace(make_record(seed=0), protocol=name)
        for name in ("a", "b")
    }
    Comparison("mixed", "", records, mix=True).write_records(results / "starts.jsonl")
    assert [row.split(" | ")[1] for row in rows_of(page.render(results))] == ["`a`", "`b`"]


def test_a_record_changed_by_hand_is_not_on_the_page(results):
    path = results / "starts.jsonl"
    path.write_text(path.read_text().replace("20.0", "40.0"))
    with pytest.raises(UserError, match="line 1: .*edited by hand"):
        page.render(results)


def test_without_records_the_page_has_no_own_results(tmp_path):
    assert "none has been committed" in page.render(tmp_path)
