import json

import pytest

from virtex_det.benchmark.costs import RunCost, read_cost
from virtex_det.errors import UserError

COST = RunCost(
    iterations=4,
    images=32,
    captions_per_image=2,
    training_seconds=1.5,
    cpu_seconds=2.5,
    processes=2,
)


def test_a_cost_is_read_as_it_was_written(tmp_path):
    COST.write(tmp_path)
    assert read_cost(tmp_path) == COST
    assert json.loads((tmp_path / "cost.json").read_text())["images"] == 32


def test_a_folder_of_an_earlier_version_says_no_cost(tmp_path):
    assert read_cost(tmp_path) is None


def test_what_is_not_known_is_none(tmp_path):
    text = '{"iterations": 1, "images": 2, "captions_per_image": null, "training_seconds": null, '
    (tmp_path / "cost.json").write_text(text + '"cpu_seconds": null, "processes": 1}')
    assert read_cost(tmp_path).cpu_seconds is None


SOUND = {
    "iterations": 4,
    "images": 32,
    "captions_per_image": 2,
    "training_seconds": 1.5,
    "cpu_seconds": 2.5,
    "processes": 2,
}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        "\x00",
        "[" * 100_000,
        json.dumps(SOUND | {"images": -1}),
        json.dumps(SOUND | {"cpu_seconds": "long"}),
        json.dumps(SOUND | {"cpu_seconds": float("nan")}),
        json.dumps(SOUND | {"more": 1}),
    ],
)
def test_a_damaged_cost_is_named(tmp_path, content):
    (tmp_path / "cost.json").write_text(content)
    with pytest.raises(UserError, match=r"cost.json is damaged: .*\nPut it back"):
        read_cost(tmp_path)
