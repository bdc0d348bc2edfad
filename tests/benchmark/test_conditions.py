import dataclasses
import json

import pytest

from virtex_det.benchmark.comparison import Cell, Comparison
from virtex_det.benchmark.conditions import (
    Cost,
    conditions,
    cost_table,
    costs,
    duration,
    logged_seconds,
)
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


def pretrained(folder, seconds: float = 0.0) -> dict:
    """Return what a record says of weights from this folder, whose run took this time."""
    folder.mkdir(parents=True)
    if seconds:
        (folder / "metrics.json").write_text(json.dumps({"iteration": 9, "time": seconds / 10}))
    return {
        "weights": {
            "path": str(folder / "model_final.pth"),
            "sha256": folder.name,
            "format": "virtex_det",
        }
    }


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
    assert "captions at 10 %" in sentence(
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


def test_pretraining_is_counted_from_the_log_beside_the_weights(compare, tmp_path):
    weights = pretrained(tmp_path / "once", seconds=300)
    comparison = compare(lambda cell: weights if cell.start == "captions" else {})
    found = costs(comparison)
    assert found["random"] == (0.0, 0, 100.0)
    assert found["captions"] == (pytest.approx(300), 1, 100.0)
    assert sentence(comparison, "Not equal: total compute")
    assert "captions" in sentence(comparison, "the spread has no pretraining in it")


def test_one_pretraining_per_seed_is_in_the_spread_and_its_cost_is_a_mean(compare, tmp_path):
    weights = {seed: pretrained(tmp_path / str(seed), seconds=100 + 100 * seed) for seed in (0, 1)}
    comparison = compare(lambda cell: weights[cell.seed] if cell.start == "captions" else {})
    assert costs(comparison)["captions"] == (pytest.approx(150), 2, 100.0)
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


def test_weights_from_elsewhere_have_a_cost_that_is_not_known(compare, tmp_path):
    weights = pretrained(tmp_path / "elsewhere")
    assert (
        costs(compare(lambda cell: weights if cell.start == "captions" else {}))[
            "captions"
        ].pretraining
        is None
    )
    of_seed = {0: weights, 1: pretrained(tmp_path / "here", seconds=300)}
    assert costs(compare(lambda cell: of_seed[cell.seed]))["captions"].pretraining is None


def test_training_time_counts_an_iteration_once_when_a_run_was_resumed(tmp_path):
    rows = [
        {"iteration": 19, "time": 0.5},
        {"iteration": 39, "time": 0.5},
        {"iteration": 29, "time": 2.0},
        {"iteration": 39, "time": 0.5},
        {"iteration": 59, "time": 1.0},
    ]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, rows)))
    assert logged_seconds(tmp_path) == pytest.approx(20 * 0.5 + 20 * 0.5 + 20 * 1.0)


@pytest.mark.parametrize(
    "odd", ['{"iteration": 39, "ti', "[" * 100_000, "3", '{"time": "x", "iteration": 3}', ""]
)
def test_training_time_passes_over_lines_that_are_not_whole(odd, tmp_path):
    whole = [json.dumps({"iteration": 19, "time": 0.5}), json.dumps({"iteration": 39, "time": 0.5})]
    (tmp_path / "metrics.json").write_text("\n".join([whole[0], odd, whole[1], odd]))
    assert logged_seconds(tmp_path) == pytest.approx(20)


@pytest.mark.parametrize(("seconds", "words"), [(45, "45 s"), (540, "9.0 min"), (9000, "2.5 h")])
def test_a_duration_has_the_unit_that_suits_it(seconds, words):
    assert duration(seconds) == words


def test_costs_in_words_sort_by_seconds():
    costs = {
        "random": Cost(0.0, 0, 30.0),
        "captions": Cost(600.0, 3, 30.0),
        "zoo": Cost(None, 1, None),
    }
    random, captions, zoo = cost_table(costs).rows
    assert random[1:] == [Value("none", 0.0), Value("30 s", 30.0)]
    assert captions[1] == Value("10.0 min, 3 times", 600.0)
    assert zoo[1:] == [Value("not known"), Value("not known")]
