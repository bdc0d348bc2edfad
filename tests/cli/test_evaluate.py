import json
from pathlib import Path

import pytest

from tests.data.datasets.conftest import catalog, coco, coco_content, write_image
from tests.evaluation.detection.references import (
    coco_reference,
    jitter,
    lvis_reference,
    random_content,
)
from tests.processes import run_script
from virtex_det.cli.evaluate import main
from virtex_det.data.datasets import datasets_root, register_builtin_datasets
from virtex_det.errors import UserError

__all__ = ["catalog", "coco", "write_image"]

TOOL = Path(__file__).parents[2] / "tools" / "evaluate.py"


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: main(list(map(str, arguments)))


@pytest.fixture
def registered_samples(samples):
    """The real samples under their names, in place of the tests' own data."""
    register_builtin_datasets(samples)
    yield samples
    register_builtin_datasets(datasets_root())


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def known(numbers):
    """Numbers as JSON has them: without NaN."""
    return {
        name: None if value != value else pytest.approx(value, abs=1e-9)
        for name, value in numbers.items()
    }


def test_it_prints_and_writes_the_numbers_of_boxes_and_masks(tmp_path, evaluate, capsys):
    content = random_content(0)
    entries = jitter(content, 0)
    write(tmp_path / "truth.json", content)
    write(tmp_path / "results.json", entries)
    arguments = "results.json --annotations truth.json --style coco --json out/numbers.json".split()
    evaluate(*arguments)
    printed = capsys.readouterr().out
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text())
    for task in ("bbox", "segm"):
        expected = coco_reference(content, entries, task)
        assert numbers[task] == known(expected)
        assert any(
            line.split() == ["AR100", f"{expected['AR100']:.3f}"] for line in printed.splitlines()
        )
    assert "segm, by category" in printed and all(
        category["name"] in printed for category in content["categories"]
    )


def test_masks_alone_are_enough_for_lvis(tmp_path, evaluate):
    content = random_content(1, style="lvis")
    entries = jitter(content, 1)
    write(tmp_path / "truth.json", content)
    write(
        tmp_path / "results.json",
        [{name: entry[name] for name in entry if name != "bbox"} for entry in entries],
    )
    arguments = "results.json --annotations truth.json --style lvis --json numbers.json".split()
    evaluate(*arguments)
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["segm"] == known(lvis_reference(content, entries, "segm", tmp_path))
    assert numbers["bbox"] == known(lvis_reference(content, entries, "bbox", tmp_path))


def test_two_runs_are_compared_by_category(tmp_path, evaluate, capsys):
    content = random_content(2)
    write(tmp_path / "truth.json", content)
    write(tmp_path / "ours.json", jitter(content, 2))
    write(tmp_path / "theirs.json", jitter(content, 3))
    arguments = "ours.json --compare theirs.json --annotations truth.json --style coco".split()
    evaluate(*arguments, "--json", "numbers.json")
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    expected = (
        coco_reference(content, jitter(content, 2), "bbox")["AP"]
        - (coco_reference(content, jitter(content, 3), "bbox")["AP"])
    )
    assert numbers["change"]["bbox"]["AP"] == pytest.approx(expected, abs=1e-9) and expected
    assert any(
        line.split()[-1:] == [f"{expected:.3f}"] for line in capsys.readouterr().out.splitlines()
    )


@pytest.mark.parametrize(
    ("dataset", "folder", "name"),
    [
        ("coco_mini_val", "coco_mini", "instances_val2017.json"),
        ("lvis_100_val", "lvis_100", "lvis_val_9_with_images.json"),
    ],
)
def test_real_data_by_their_names(registered_samples, tmp_path, evaluate, dataset, folder, name):
    content = json.loads((registered_samples / folder / "annotations" / name).read_text())
    entries = jitter(content, 0)
    write(tmp_path / "results.json", entries)
    arguments = ("results.json", "--dataset", dataset, "--json", "numbers.json")
    evaluate(*arguments)
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    for task in ("bbox", "segm"):
        expected = (
            coco_reference(content, entries, task)
            if folder == "coco_mini"
            else lvis_reference(content, entries, task, tmp_path)
        )
        assert numbers[task] == known(expected)


def test_real_voc_by_its_name(registered_samples, tmp_path, evaluate, capsys):
    box = {
        "image_id": "2007_000027",
        "category_id": 14,
        "bbox": [173.0, 100.0, 176.0, 251.0],
        "score": 0.9,
    }
    lines = (
        (registered_samples / "voc_mini" / "VOC2007" / "ImageSets" / "Main" / "test.txt")
        .read_text()
        .split()
    )
    write(tmp_path / "results.json", [box | {"image_id": lines[0]}])
    arguments = ("results.json", "--dataset", "voc_mini_test")
    evaluate(*arguments)
    printed = capsys.readouterr().out
    assert "AP75_area" in printed and "tvmonitor" in printed


def test_an_unknown_dataset_is_an_error(evaluate):
    with pytest.raises(UserError, match="coco_2071_val"):
        evaluate("results.json", "--dataset", "coco_2071_val")


def test_annotations_without_a_style_are_refused(evaluate, capsys):
    with pytest.raises(SystemExit):
        evaluate("results.json", "--annotations", "truth.json")
    assert "--annotations needs --style" in capsys.readouterr().err


def test_a_style_of_a_registered_dataset_is_refused(evaluate, capsys):
    with pytest.raises(SystemExit):
        evaluate("results.json", "--dataset", "coco_2017_val", "--style", "lvis")
    assert "--style is only for --annotations" in capsys.readouterr().err


def test_a_mistake_is_one_screen_and_exit_code_1(tmp_path):
    write(tmp_path / "truth.json", random_content(0))
    words = "results.json --annotations truth.json --style coco".split()
    run = run_script(str(TOOL), *words, cwd=tmp_path)
    assert (
        run.returncode == 1
        and "results.json does not exist" in run.stderr
        and "Traceback" not in run.stderr
    )


def test_data_have_the_classes_that_the_results_were_made_with(tmp_path, evaluate, coco):
    """A run on these classes numbers them by itself: its 1 is the file's 2."""
    bolt = coco_content()["annotations"][2]
    result = {"image_id": 2, "category_id": 1, "bbox": bolt["bbox"], "score": 1.0}
    write(tmp_path / "results.json", [result])
    words = ("results.json", "--dataset", coco(coco_content()), "--json", "numbers.json")
    evaluate(*words, "--classes", '[["screw", "bolt"]]')
    numbers = json.loads((tmp_path / "numbers.json").read_text())["bbox"]
    assert numbers["AP-screw"] > 0 and "AP-nut" not in numbers
    evaluate(*words)
    assert json.loads((tmp_path / "numbers.json").read_text())["bbox"]["AP-bolt"] == 0
