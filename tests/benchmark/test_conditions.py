import dataclasses

import pytest

from virtex_det.benchmark.comparison import Cell, Comparison
from virtex_det.benchmark.conditions import (
    Cost,
    conditions,
    cost_table,
    costs,
    duration,
)
from virtex_det.benchmark.costs import RunCost
from virtex_det.benchmark.tables import Value


@pytest.fixture
def compare(make_record):
    """Makes a comparison of two starts and two seeds; a function may change its records."""

    def make(change=lambda cell: {}, mix: bool = False) -> Comparison:
        cells = [
            Cell(start, "scenes", 0.1, seed) for start in ("random", "captions") for seed in (0, 1)
        ]
        records = {
            cell: dataclasses.replace(make_record(seed=cell.seed), **change(cell)) for cell in cells
        }
        return Comparison("", "random", records, mix)

    return make


def sentence(comparison: Comparison, words: str) -> str:
    """Return the one sentence that has these words."""
    (found,) = [line for line in conditions(comparison) if words in line]
    return found


def weights(name: str) -> dict:
    """Return what a record says of a run's final weights."""
    return {"weights": {"path": f"{name}/model_final.pth", "sha256": name, "format": "virtex_det"}}


def of_seconds(seconds: float | None, **changes) -> RunCost:
    """Return the cost of a pretraining that took this time, and twice as many CPU seconds."""
    fields = {
        "iterations": 100,
        "images": 1600,
        "captions_per_image": 2,
        "training_seconds": seconds,
        "cpu_seconds": None if seconds is None else 2 * seconds,
        "processes": 1,
    }
    return RunCost(**fields | changes)


def with_costs(comparison: Comparison, cost_of) -> Comparison:
    """Return the comparison with the cost of each pretraining, None for an unknown one."""
    found = {cell: cost_of(cell) for cell in comparison.records if cell.start == "captions"}
    known = {cell: cost for cell, cost in found.items() if cost}
    return dataclasses.replace(comparison, pretraining=known)


def test_what_the_records_agree_on_is_equal(compare):
    assert "scenes_val (4 images)" in sentence(compare(), "Equal: what all runs are evaluated on")
    assert "scenes-segm" in sentence(compare(), "Equal: detector")
    assert sentence(compare(), "Equal: the labelled images")
    assert not any("Not equal" in line for line in conditions(compare()))


def test_starts_with_other_images_are_named(compare):
    comparison = compare(lambda cell: {"manifest_sha256": cell.start} if cell.seed == 1 else {})
    assert "10 % seed 1" in sentence(comparison, "Not equal: the labelled images")
    assert not any("Equal: the labelled images" in line for line in conditions(comparison))


def test_records_without_a_manifest_claim_nothing_of_the_images(compare):
    comparison = compare(lambda cell: {"manifest_sha256": ""} if cell.start == "captions" else {})
    assert sentence(comparison, "Not known: whether all starts saw the same labelled images")


def test_mixed_protocols_are_named(compare):
    comparison = compare(lambda cell: {"protocol": "other"} if cell.seed else {}, mix=True)
    assert "other, scenes-segm" in sentence(comparison, "Not equal: the protocol")


def test_a_row_with_fewer_seeds_is_named(compare):
    records = dict(compare().records)
    del records[Cell("captions", "scenes", 0.1, 1)]
    assert "no start as the best" in sentence(
        Comparison("", "random", records), "Not equal: the number of seeds"
    )


def test_categories_without_labels_are_named_with_fraction_and_seeds(compare):
    comparison = compare(
        lambda cell: {"empty_categories": ("horse", "cow")} if cell.seed == 1 else {}
    )
    assert "at 10 %, seed 1: horse, cow." in sentence(
        comparison, "Without a single labelled instance"
    )


def test_several_machines_and_revisions_are_named(compare):
    other = {"code_revision": "abc", "hardware": {"cpu": "slow"}}
    comparison = compare(
        lambda cell: other if cell.seed else {"code_revision": "def", "hardware": {"gpu": "fast"}}
    )
    assert "abc, def" in sentence(comparison, "Not equal: the code")
    assert "fast, slow" in sentence(comparison, "Not equal: the machine")


def test_one_pretraining_for_all_seeds_is_counted_once(compare):
    comparison = compare(lambda cell: weights("once") if cell.start == "captions" else {})
    # The line of seed 1 is of an earlier version.
    found = costs(with_costs(comparison, lambda cell: None if cell.seed else of_seconds(300.0)))
    assert found["random"] == Cost([], 100.0) and found["random"].pretraining == 0
    assert found["captions"] == Cost([of_seconds(300.0)], 100.0)
    assert sentence(comparison, "Not equal: total compute")
    assert "captions" in sentence(comparison, "the spread has no pretraining in it")


def test_one_pretraining_per_seed_is_in_the_spread_and_its_cost_is_a_mean(compare):
    comparison = compare(lambda cell: weights(str(cell.seed)) if cell.start == "captions" else {})
    found = costs(with_costs(comparison, lambda cell: of_seconds(100.0 + 100 * cell.seed)))
    assert found["captions"].pretraining == pytest.approx(150)
    assert found["captions"].mean("cpu_seconds") == pytest.approx(300)
    assert found["captions"].mean("images") == 1600
    assert "Each seed of captions" in sentence(comparison, "the spread has pretraining in it")
    assert not any("the spread has no pretraining" in line for line in conditions(comparison))


def test_weights_that_differ_within_a_seed_are_named(make_record):
    weights = {
        fraction: {"path": "", "sha256": str(fraction), "format": ""} for fraction in (0.1, 1.0)
    }
    records = {
        Cell("captions", "scenes", fraction, seed): dataclasses.replace(
            make_record(seed=seed, fraction=fraction), weights=weights[fraction]
        )
        for fraction in (0.1, 1.0)
        for seed in (0, 1)
    }
    comparison = Comparison("", "", records)
    assert "the weights of captions" in sentence(
        comparison, "Runs of one seed began from several files"
    )
    assert not any("pretraining in it" in line for line in conditions(comparison))


def test_runs_evaluated_on_different_data_are_not_equal(compare):
    other = {"dataset": "coco_2017_val", "protocol": "other"}
    comparison = compare(lambda cell: other if cell.seed else {}, mix=True)
    assert "coco_2017_val (4 images) and scenes_val" in sentence(
        comparison, "Not equal: what the runs are evaluated on"
    )


def test_weights_from_elsewhere_have_a_cost_that_is_not_known(compare):
    comparison = compare(lambda cell: weights("zoo") if cell.start == "captions" else {})
    assert costs(comparison)["captions"].pretraining is None
    comparison = compare(lambda cell: weights(str(cell.seed)))
    found = costs(with_costs(comparison, lambda cell: of_seconds(300.0) if cell.seed else None))
    assert found["captions"].pretraining is None and found["captions"].mean("images") is None


@pytest.mark.parametrize(("seconds", "words"), [(45, "45 s"), (540, "9.0 min"), (9000, "2.5 h")])
def test_a_duration_has_the_unit_that_suits_it(seconds, words):
    assert duration(seconds) == words


def test_costs_without_a_known_pretraining_are_times_alone():
    table = cost_table({"random": Cost([], 30.0), "zoo": Cost([None], None)})
    assert table.columns == ["start", "pretraining", "fine-tuning, per run"] and not table.notes
    random, zoo = table.rows
    assert random[1:] == [Value("none", 0.0), Value("30 s", 30.0)]
    assert zoo[1:] == [Value("not known"), Value("not known")]


def test_costs_show_images_captions_and_cpu_seconds_and_sort_by_numbers():
    made = [of_seconds(600.0), of_seconds(300.0), of_seconds(900.0)]
    without = of_seconds(None, captions_per_image=None)
    table = cost_table(
        {"random": Cost([], 30.0), "captions": Cost(made, 30.0), "tags": Cost([without], None)}
    )
    assert table.columns[:4] == ["start", "images", "captions per image", "CPU seconds"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    random, captions, tags = table.rows
    assert random[1:5] == [Value("none", 0.0), Value(), Value("none", 0.0), Value("none", 0.0)]
    assert captions[1:5] == [
        Value("1600", 1600),
        Value("2", 2),
        Value("1200", 1200),
        Value("10.0 min, 3 times", 600.0),
    ]
    assert tags[1:4] == [Value("1600", 1600), Value(), Value("not known")]


def test_starts_with_other_numbers_of_captions_by_seed_name_both():
    made = [of_seconds(1.0), of_seconds(1.0, captions_per_image=5)]
    assert cost_table({"captions": Cost(made, None)}).rows[0][2] == Value("2 and 5", 2)
