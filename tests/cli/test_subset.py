import json
from pathlib import Path

import pytest

from tests.processes import run_script
from virtex_det.cli.subset import main
from virtex_det.data.datasets import load_dataset, take_fraction

TOOL = Path(__file__).parents[2] / "tools" / "subset.py"


@pytest.fixture
def run(scenes, capsys):
    """Runs the command on the small scenes; returns what it printed."""

    def run(*words):
        main(["--dataset", "scenes_train", *map(str, words)])
        return capsys.readouterr().out

    return run


def chosen(fraction, seed=0, stratified=False):
    return [
        entry["image_id"]
        for entry in take_fraction(load_dataset("scenes_train"), fraction, seed, stratified)
    ]


def test_what_a_part_holds_is_shown(run):
    printed = run("--fraction", 0.1)
    dicts = take_fraction(load_dataset("scenes_train"), 0.1)
    found = {each["category_id"] for entry in dicts for each in entry["annotations"]}
    instances = sum(len(entry["annotations"]) for entry in dicts)
    assert (
        "scenes_train: 2 images\n" in printed
        and f"{instances} instances of {len(found)} categories" in printed
    )
    assert f"{8 - len(found)} categories without an instance" in printed and "sha256 " in printed


def test_a_manifest_is_written_and_shown_again_without_saying_what_it_is(run, tmp_path):
    path = tmp_path / "subset.json"
    printed = run("--fraction", 0.5, "--seed", 2, "--stratified", "--output", path)
    content = json.loads(path.read_text())
    assert (
        content["ids"] == {"scenes_train": chosen(0.5, 2, stratified=True)}
        and content["sha256"] in printed
    )
    assert run("--split", path) == printed.rpartition(str(path))[0]


def test_a_list_of_ids_is_written_and_turned_into_a_manifest(run, tmp_path):
    run("--fraction", 0.5, "--format", "ids", "--output", tmp_path / "ids.txt")
    assert (tmp_path / "ids.txt").read_text().split() == [str(image_id) for image_id in chosen(0.5)]
    run("--fraction", 0.5, "--split", tmp_path / "ids.txt", "--output", tmp_path / "subset.json")
    assert json.loads((tmp_path / "subset.json").read_text())["ids"]["scenes_train"] == chosen(0.5)


def test_unbiased_teachers_form_holds_several_parts_and_is_read_again(run, tmp_path):
    path = tmp_path / "supervision.txt"
    run("--fraction", 0.25, 0.5, "--seed", 0, 1, "--format", "unbiased-teacher", "--output", path)
    content = json.loads(path.read_text())
    assert {percent: sorted(seeds) for percent, seeds in content.items()} == {
        "25.0": ["0", "1"],
        "50.0": ["0", "1"],
    }
    run("--fraction", 0.5, "--seed", 1, "--split", path, "--output", tmp_path / "subset.json")
    manifest = json.loads((tmp_path / "subset.json").read_text())
    assert (manifest["fraction"], manifest["seed"]) == (0.5, 1)
    assert manifest["ids"]["scenes_train"] == chosen(0.5, 1)  # every scene has objects


@pytest.mark.parametrize(
    "words",
    [
        ("--fraction", 0.1, 0.5),
        ("--fraction", 0.1, "--format", "unbiased-teacher"),
        ("--split", "ids.txt", "--fraction", 0.1, "--format", "unbiased-teacher", "--output", "x"),
    ],
)
def test_contradictory_arguments_are_refused(run, words, capsys):
    with pytest.raises(SystemExit):
        run(*words)
    assert "error: " in capsys.readouterr().err


def test_a_mistake_is_one_screen_and_exit_code_1(tmp_path):
    done = run_script(TOOL, "--dataset", "scenes_trian", "--fraction", 0.1)
    assert (
        done.returncode == 1
        and "Did you mean scenes_train" in done.stderr
        and "Traceback" not in done.stderr
    )
