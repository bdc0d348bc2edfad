import pytest
import yaml

from virtex_det.benchmark.published import PUBLISHED, published, published_for, published_results
from virtex_det.errors import UserError
from virtex_det.protocols.catalog import protocols
from virtex_det.yaml_files import read_yaml_file


@pytest.mark.parametrize(
    "result", published(), ids=lambda result: f"{result.protocol} {result.start}"
)
def test_every_number_was_read_in_a_source_and_belongs_to_a_protocol(result):
    assert result.how_sure == "READ"
    assert result.source and result.start and result.paper
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


ROWS = """\
- protocol: coco-segm-2x
  paper: Doe 2026
  source: arXiv
  how_sure: READ
  rows:
    - {start: a, bbox: {AP: 40}}
    - {start: b, bbox: {AP: 41.5}}
"""


@pytest.mark.parametrize(
    ("here", "there", "line", "message"),
    [
        ("READ", "MEM-hi", 4, "how_sure is MEM-hi, but only numbers that were READ"),
        ("  paper: Doe 2026\n", "", 1, "missing required field `paper`"),
        ("  source:", "  sources:", 3, "no field sources; the nearest: source"),
        ("source: arXiv", "source: ''", 3, "field source: Expected `str` of length >= 1"),
        ("{AP: 41.5}", "{AP: high}", 7, "metrics of bbox in percent"),
        ("{AP: 41.5}", "{AP: 141.5}", 7, "metrics of bbox in percent"),
        ("{AP: 41.5}", "{AP: .nan}", 7, "metrics of bbox in percent"),
        ("{AP: 41.5}", "41.5", 7, "metrics of bbox in percent"),
        (", bbox: {AP: 41.5}", "", 7, "the row has no numbers"),
        ("{start: b, ", "{", 7, "missing required field `start`"),
        ("start: b", "start: a", 7, "a second row of a under coco-segm-2x"),
        ("  rows:", "  rows: 3\n  more:", 6, "no field more"),
    ],
)
def test_a_slip_in_a_row_is_named_with_its_line(tmp_path, here, there, line, message):
    (tmp_path / "rows.yaml").write_text(ROWS.replace(here, there))
    file = read_yaml_file(tmp_path / "rows.yaml")
    with pytest.raises(UserError, match=f"rows.yaml, line {line}: .*{message}"):
        published_results(file, file.content)


def test_a_file_that_is_no_list_of_groups_is_refused(tmp_path):
    (tmp_path / "rows.yaml").write_text("protocol: coco-segm-2x")
    file = read_yaml_file(tmp_path / "rows.yaml")
    with pytest.raises(UserError, match="expected a list of groups of published rows"):
        published_results(file, file.content)
