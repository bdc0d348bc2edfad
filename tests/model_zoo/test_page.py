import pytest

from virtex_det.model_zoo import page
from virtex_det.model_zoo.catalog import catalog


def test_the_page_in_the_repository_is_what_the_catalogue_gives():
    assert page.render() == page.PAGE.read_text(), "stale; run: python tools/model_zoo.py page"


def test_every_record_is_on_the_page():
    text = page.render()
    assert all(f"[{record.name}](" in text for record in catalog())


def test_every_published_number_is_on_the_page():
    text = page.render()
    numbers = [f"{m} {v}" for record in catalog() for group in record.numbers.values() for m, v in group.items()]
    assert all(number in text for number in numbers)


@pytest.fixture
def run_folder(tmp_path):
    from virtex_det.benchmark.records import ResultRecord

    metrics = {"bbox": {"AP": 40.96}, "segm": {"AP": None}}
    weights = {"path": "virtex://swav_800ep", "sha256": "0", "format": "swav"}
    ours = ResultRecord(
        "coco-segm-2x", "coco_2017_val", ("coco_2017_train",), 0.1, 0, 7, 10, metrics, weights, {}, "", 1.0
    )
    (tmp_path / "results" / "run").mkdir(parents=True)
    ours.write(tmp_path / "results" / "run")
    return tmp_path / "results"


def test_our_own_results_come_from_records(run_folder):
    row = next(line for line in page.render(run_folder).splitlines() if line.startswith("| virtex://swav_800ep"))
    assert row.startswith("| virtex://swav_800ep | coco-segm-2x | coco_2017_val | 10% | 7 | 41.0 | - |")


def test_without_records_the_page_claims_no_result_of_ours(tmp_path):
    assert "no full-scale run has been recorded" in page.render(tmp_path)
