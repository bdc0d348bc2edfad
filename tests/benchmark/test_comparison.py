import dataclasses
import json

import pytest

from virtex_det.benchmark.comparison import Cell, Comparison, read_comparison
from virtex_det.benchmark.costs import RunCost
from virtex_det.errors import UserError


@pytest.fixture
def records(make_record):
    reached = {"random init": (4.0, 6.0), "captions": (10.0, 12.0)}
    return {
        Cell(start, "scenes-segm", 0.1, seed): make_record(box_ap, box_ap / 2, seed=seed)
        for start, values in reached.items()
        for seed, box_ap in enumerate(values)
    }


def changed(records, number: int, **fields):
    """Change fields of one record, as another run would have written it."""
    cell = list(records)[number]
    return records | {cell: dataclasses.replace(records[cell], **fields)}


def test_starts_stay_in_order_and_fractions_and_seeds_ascend(make_record):
    cells = [Cell("b", "p", 1.0, 1), Cell("a", "p", 0.1, 0), Cell("b", "p", 0.1, 1)]
    comparison = Comparison("", "", {cell: make_record() for cell in cells})
    assert comparison.starts == ["b", "a"]
    assert (comparison.fractions, comparison.seeds) == ([0.1, 1.0], [0, 1])


def test_two_versions_of_the_evaluation_set_are_refused_even_when_mixing(records):
    two = changed(records, 3, dataset_version={"images": 4, "sha256": "f" * 64})
    with pytest.raises(
        UserError,
        match=r"2 versions of scenes_val(?s:.*)sha256 ffffffffffff, e.g. captions.*seed 1",
    ):
        Comparison("", "", two, mix=True)


def test_two_versions_of_the_training_set_are_refused(records):
    two = changed(records, 0, train_versions={"scenes_train": {"images": 11, "sha256": "2" * 64}})
    with pytest.raises(UserError, match="2 versions of scenes_train"):
        Comparison("", "", two)


def test_two_protocols_are_refused_unless_asked_for(records):
    two = changed(records, 1, protocol="scenes-segm+SOLVER.BASE_LR=0.1")
    with pytest.raises(
        UserError,
        match=r"2 protocols(?s:.*)BASE_LR=0.1, e.g. random init.*seed 1(?s:.*)--mix-protocols",
    ):
        Comparison("", "", two)
    assert len(Comparison("", "", two, mix=True).recipes) == 2


def test_what_is_written_is_read_again(records, tmp_path):
    comparison = Comparison("What captions are worth", "random init", records)
    comparison.write_records(tmp_path / "page.jsonl")
    assert read_comparison(tmp_path / "page.jsonl", comparison.title, "random init") == comparison


COST = RunCost(
    iterations=4,
    images=32,
    captions_per_image=None,
    training_seconds=1.5,
    cpu_seconds=None,
    processes=2,
)


def test_what_pretraining_cost_is_on_the_lines_of_its_cells_and_read_again(records, tmp_path):
    captions = [cell for cell in records if cell.start == "captions"]
    comparison = Comparison("", "", records, pretraining=dict.fromkeys(captions, COST))
    comparison.write_records(tmp_path / "page.jsonl")
    assert read_comparison(tmp_path / "page.jsonl") == comparison
    lines = [json.loads(line) for line in (tmp_path / "page.jsonl").read_text().splitlines()]
    assert [line.get("pretraining") for line in lines] == [None, None, *2 * [COST.as_json()]]
    assert all(list(line)[:2] == ["cell", "record"] for line in lines)


@pytest.mark.parametrize("odd", [3, "x", [], {}, COST.as_json() | {"images": "many"}])
def test_a_damaged_cost_is_named_with_its_line(records, tmp_path, odd):
    Comparison("", "", records).write_records(tmp_path / "page.jsonl")
    first, *others = (tmp_path / "page.jsonl").read_text().splitlines()
    line = json.dumps(json.loads(first) | {"pretraining": odd})
    (tmp_path / "page.jsonl").write_text("\n".join([line, *others]))
    with pytest.raises(UserError, match=r"page.jsonl, line 1: the cost of its pretraining"):
        read_comparison(tmp_path / "page.jsonl")


def test_a_number_changed_by_hand_is_refused_with_its_line(records, tmp_path):
    Comparison("", "", records).write_records(tmp_path / "page.jsonl")
    text = (tmp_path / "page.jsonl").read_text()
    (tmp_path / "page.jsonl").write_text(text.replace('"AP": 12.0', '"AP": 21.0'))
    with pytest.raises(UserError, match="page.jsonl, line 4.*edited by hand"):
        read_comparison(tmp_path / "page.jsonl")


@pytest.mark.parametrize("content", ['{"cell": {', '{"cell": {"start": "a"}, "record": {}}', "[]"])
def test_a_line_that_is_no_record_is_named(tmp_path, content):
    (tmp_path / "page.jsonl").write_text(content)
    with pytest.raises(UserError, match="line 1"):
        read_comparison(tmp_path / "page.jsonl")


def test_records_that_are_not_there_are_an_error_of_one_line(tmp_path):
    with pytest.raises(UserError, match="page.jsonl cannot be read"):
        read_comparison(tmp_path / "page.jsonl")


def test_written_records_are_json_without_nan(records, tmp_path):
    Comparison("", "", records).write_records(tmp_path / "page.jsonl")
    lines = (tmp_path / "page.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail)["cell"]["seed"] for line in lines] == [
        0,
        1,
        0,
        1,
    ]


@pytest.mark.parametrize(("field", "value"), [("fraction", 1.0), ("seed", 7), ("seed", "0")])
def test_a_cell_changed_by_hand_is_refused_with_its_line(records, tmp_path, field, value):
    Comparison("", "", records).write_records(tmp_path / "page.jsonl")
    first, *others = (tmp_path / "page.jsonl").read_text().splitlines()
    line = json.loads(first)
    line["cell"][field] = value
    (tmp_path / "page.jsonl").write_text("\n".join([json.dumps(line), *others]))
    with pytest.raises(
        UserError, match=f"line 1: .* and seed 0, but its cell has .*{value}(?s:.*)edited by hand"
    ):
        read_comparison(tmp_path / "page.jsonl")


def test_two_records_of_one_cell_are_refused(records, tmp_path):
    Comparison("", "", records).write_records(tmp_path / "page.jsonl")
    Comparison("", "", changed(records, 0, metrics={"bbox": {"AP": 99.0}})).write_records(
        tmp_path / "other.jsonl"
    )
    both = (tmp_path / "page.jsonl").read_text() + (tmp_path / "other.jsonl").read_text()
    (tmp_path / "page.jsonl").write_text(both)
    with pytest.raises(
        UserError, match="line 5: a second record of random init, scenes-segm, 10 % .*seed 0"
    ):
        read_comparison(tmp_path / "page.jsonl")


def test_a_file_without_records_is_refused(tmp_path):
    (tmp_path / "page.jsonl").write_text("")
    with pytest.raises(UserError, match="holds no records"):
        read_comparison(tmp_path / "page.jsonl")


def test_small_parts_of_the_labels_are_not_rounded_to_none(make_record):
    records = {Cell("a", "p", 0.001, seed): make_record() for seed in (0, 1)}
    with pytest.raises(UserError, match="a, p, 0.1 % of the labels"):
        Comparison("", "", changed(records, 1, protocol="other"))


STARTS = ("random", "a", "b")


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (lambda cell: cell.seed == 0, "seed 1 of every start; seed 2 of every start."),
        (
            lambda cell: cell.seed == 0 and cell.start != "random",
            "seed 0 of random; seed 1 of every start; seed 2 of every start.",
        ),
        (
            lambda cell: cell.seed < 2 and cell != ("a", "p", 1.0, 1),
            "seed 2 of every start; seed 1 of a at 100 %.",
        ),
        (
            lambda cell: cell.seed == 0 or cell.start == "random",
            "seed 1 of a, b; seed 2 of a, b.",
        ),
        (
            lambda cell: cell.fraction < 1 or cell.seed,
            "seed 0 of every start at 100 %.",
        ),
    ],
    ids=["seeds", "a start", "one run", "some starts", "a fraction"],
)
def test_what_is_missing_of_a_matrix_is_said_by_what_it_has_in_common(make_record, there, said):
    cells = [Cell(s, "p", f, seed) for s in STARTS for f in (0.1, 1.0) for seed in (0, 1, 2)]
    records = {
        cell: make_record(seed=cell.seed, fraction=cell.fraction) for cell in cells if there(cell)
    }
    missing = [cell for cell in cells if cell not in records]
    gaps = Comparison("", "random", records, missing=missing).gaps
    assert gaps.startswith(f"Unfinished: {len(records)} of the 18 runs of the matrix are complete")
    assert gaps.endswith(f"Missing: {said}")


def test_a_whole_matrix_has_no_gaps(make_record):
    comparison = Comparison("", "gone", {Cell("random", "p", 0.1, 0): make_record()})
    assert comparison.gaps == "" and comparison.baseline == "", "a baseline needs records"
