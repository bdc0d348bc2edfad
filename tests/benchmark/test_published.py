import pytest
import yaml

from virtex_det.benchmark.published import PUBLISHED, published, published_for
from virtex_det.protocols.catalog import protocols


@pytest.mark.parametrize(
    "result", published(), ids=lambda result: f"{result.protocol} {result.start}"
)
def test_every_number_was_read_in_a_source_and_belongs_to_a_protocol(result):
    assert result.how_sure == "READ"
    assert result.source and result.start
    assert result.protocol in protocols()
    values = [value for table in result.metrics.values() for value in table.values()]
    assert values and all(isinstance(value, float) and 0 < value < 100 for value in values)


def test_no_row_and_no_number_is_lost_in_reading():
    groups = yaml.safe_load(PUBLISHED.read_text())
    rows = [row for group in groups for row in group["rows"]]
    assert len(published()) == len(rows)
    assert [{"start": result.start, **result.metrics} for result in published()] == rows


def test_one_source_says_one_thing_of_a_start():
    said = [(result.protocol, result.source, result.start) for result in published()]
    assert len(set(said)) == len(said)


def test_numbers_are_found_by_protocol():
    starts = {
        result.start: result.metrics["bbox"]["AP"]
        for result in published_for("coco-segm-1x-4conv1fc")
    }
    assert starts["ImageNet supervised"] == 39.7
    assert {result.protocol for result in published_for("coco-segm-1x-4conv1fc")} == {
        "coco-segm-1x-4conv1fc"
    }


def test_a_departure_from_a_protocol_has_nothing_published():
    assert published_for("coco-segm-1x+SOLVER.BASE_LR=0.01") == ()


def test_a_source_that_departs_from_the_protocol_says_in_what():
    clip = published_for("coco-segm-clip-1x")
    assert clip and all("mmdetection" in result.differs for result in clip)
