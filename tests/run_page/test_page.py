import dataclasses
import json
import math
import re

import pytest
from PIL import Image

from virtex_det.benchmark.costs import RunCost
from virtex_det.benchmark.evaluated_run import EvaluatedRun
from virtex_det.benchmark.records import read_records
from virtex_det.checkpoint.report import LoadReport
from virtex_det.config import load_config
from virtex_det.config.data_names import short_names
from virtex_det.data.datasets.versions import dataset_version
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.results_file import evaluate
from virtex_det.run_page.page import write_run_page

BOX, FAR = [10.0, 10.0, 20.0, 20.0], [70.0, 70.0, 10.0, 10.0]


def entry(image, category, box, **more):
    return {"image_id": image, "category_id": category, "bbox": box} | more


FOUND = [entry(1, 1, BOX, score=0.9), entry(2, 1, BOX, score=0.8), entry(2, 1, FAR, score=0.7)]


def without_nan(results):
    return {
        task: {name: None if math.isnan(value) else value for name, value in numbers.items()}
        for task, numbers in results.items()
    }


@pytest.fixture
def make_run(tmp_path, make_record):
    """Write a run folder as a training leaves it, and the data that it was evaluated on."""
    for name in ("a", "b"):
        Image.new("RGB", (100, 100), "teal").save(tmp_path / f"{name}.png")
    labels = [(1, 1, BOX), (2, 2, BOX)]
    content = {
        "images": [
            {"id": number, "file_name": f"{name}.png", "height": 100, "width": 100}
            for number, name in enumerate("ab", start=1)
        ],
        "annotations": [
            entry(image, category, box, id=number, area=400.0, iscrowd=0)
            for number, (image, category, box) in enumerate(labels, start=1)
        ],
        "categories": [{"id": 1, "name": "<i>cat"}, {"id": 2, "name": "dog"}],
    }
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content))
    dataset = f"coco:{file}:{tmp_path}"

    def make(*, detections=FOUND, record_of=FOUND, config="detectron2/scenes_segm.yaml"):
        folder = tmp_path / "run"
        cfg = load_config(
            config, ["OUTPUT_DIR", str(folder), "DATASETS.TEST", (dataset,), "MODEL.DEVICE", "cpu"]
        )
        folder.mkdir()
        (folder / "config.yaml").write_text(cfg.dump())
        rows = [{"iteration": 19, "total_loss": 2.5, "lr": 0.01, "time": 0.5}]
        rows += [{"iteration": 39, "total_loss": 1.5, "lr": 0.001, "time": 0.5}]
        lines = [json.dumps(row) for row in rows]
        (folder / "metrics.json").write_text("\n".join([*lines, '{"iteration": 5']))
        RunCost(
            iterations=40,
            images=320,
            captions_per_image=None,
            training_seconds=20.0,
            cpu_seconds=30.0,
            processes=1,
        ).write(folder)
        if record_of is not None:
            dataclasses.replace(
                make_record(iteration=40),
                dataset=short_names([dataset])[dataset],  # as evaluations record it
                dataset_version=dataset_version(dataset),
                metrics=without_nan(evaluate(record_of, dataset)),
            ).write(folder)
        if detections is not None:
            path = EvaluatedRun(folder, read_records(folder)[-1]).detections_file()
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(detections))
        return folder

    return make


def test_the_page_is_one_file_with_curves_numbers_errors_and_images(make_run, tmp_path):
    written = write_run_page(make_run(), threshold=0.5)
    page = written.path.read_text()
    assert written.missing == [] and written.path.name == "report.html"
    assert not re.search(r"(src|href)=\"(?!data:)", page) and str(tmp_path) not in page
    assert "<i>cat" not in page
    # Two curves and the evaluation, each once for light and once for dark; two images.
    assert page.count("<source") == 3 and page.count("<img") == 3 + 2
    assert "b.png: 0 found, 1 missed, 2 false alarms" in page
    assert "a.png: 1 found, 0 missed, 0 false alarms" in page
    assert re.search(r"<td>dog</td><td>&lt;i&gt;cat</td><td>1</td>", page)
    assert "20 s" in page and "--resume SOLVER.MAX_ITER 300" in page


def test_data_that_have_moved_are_found_by_their_new_name(make_run, tmp_path):
    run, moved = make_run(), tmp_path / "moved"
    moved.mkdir()
    for name in ("a.png", "b.png", "instances.json"):
        (tmp_path / name).rename(moved / name)
    assert "instances.json" in write_run_page(run).missing[0]
    written = write_run_page(run, threshold=0.5, datasets=[f"coco:{moved}/instances.json:{moved}"])
    assert written.missing == [] and "b.png: 0 found" in written.path.read_text()


def test_a_threshold_leaves_out_detections(make_run, tmp_path):
    page = tmp_path / "page.html"
    write_run_page(make_run(), page, threshold=0.75, images=1)
    assert "b.png: 0 found, 1 missed, 1 false alarm" in page.read_text()


def test_a_run_that_was_not_evaluated_has_curves_and_the_command_to_evaluate_it(make_run):
    written = write_run_page(make_run(record_of=None, detections=None))
    assert "no evaluation yet" in written.missing[0] and "--eval-only" in written.missing[0]
    assert written.path.read_text().count("<source") == 2


@pytest.mark.parametrize(
    ("detections", "reason"),
    [
        (None, "predictions, is missing"),
        ([entry(9, 1, BOX, score=0.5)], "another dataset"),
        (FOUND[1:], "of another evaluation"),
        ([{}], "expected"),
    ],
)
def test_predictions_that_are_not_the_runs_are_named_and_the_rest_is_shown(
    make_run, detections, reason
):
    written = write_run_page(make_run(detections=detections))
    assert len(written.missing) == 1 and reason in written.missing[0]
    page = written.path.read_text()
    assert "By class" in page and "Kinds of error" not in page


def test_a_captioners_run_has_its_curves(make_run):
    config = "pretrain/scenes_bicaptioning.yaml"
    written = write_run_page(make_run(config=config, record_of=None, detections=None))
    page = written.path.read_text()
    assert page.count("<source") == 2 and "tools/predict.py" not in page


@pytest.mark.parametrize("file", ["", "config.yaml"])
def test_a_folder_that_is_no_run_is_refused(tmp_path, file):
    if file:
        (tmp_path / file).write_text("MODEL: {}\n")
    with pytest.raises(UserError, match="not a run folder"):
        write_run_page(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        write_run_page(tmp_path / "absent")


def test_weights_and_a_damaged_report_of_them(make_run):
    folder = make_run(record_of=None, detections=None)
    report = LoadReport("virtex", loaded=("backbone.bottom_up.stem.conv1.weight",), path="w.pth")
    report.write(folder)
    assert "w.pth" in write_run_page(folder).path.read_text()
    (folder / "load_report.json").write_text("{}")
    with pytest.raises(UserError, match="load_report.json is damaged"):
        write_run_page(folder)
