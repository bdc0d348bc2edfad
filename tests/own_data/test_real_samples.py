"""Real data of each form from a look at them to a detector in one file, and their conversion."""

import json
import shlex
from importlib.util import find_spec

import pytest

from virtex_det.benchmark.records import read_records
from virtex_det.cli import check_data, evaluate, export, init_config, predict, show_data, train
from virtex_det.data.datasets import load_dataset
from virtex_det.engine import read_classes
from virtex_det.own_data.conversion import convert

pytestmark = pytest.mark.slow

INSTANCES = "{0}/coco_mini/annotations/instances_{1}2017.json:{0}/coco_mini/{1}2017"
LVIS = "lvis:{0}/lvis_100/annotations/lvis_val_9_with_images.json:{0}/lvis_100"
# Data to train on, and the smaller part to evaluate on.
FORMS = {
    "yolo": ("yolo:{0}/coco128/data.yaml:train", "yolo:{0}/coco128/data.yaml:val"),
    "polygons": ("yolo:{0}/coco128_seg/data.yaml:train", "yolo:{0}/coco128_seg/data.yaml:val"),
    "coco": (f"coco:{INSTANCES.format('{0}', 'val')}", f"coco:{INSTANCES.format('{0}', 'train')}"),
    "voc": ("voc:{0}/voc_mini/VOC2007:trainval", "voc:{0}/voc_mini/VOC2007:test"),
    "lvis": (LVIS, LVIS),
}
# What is measured, a number of its metric, and the number of classes.
MEASURED = {
    "yolo": ({"bbox"}, "AR100", 80),
    "polygons": ({"bbox", "segm"}, "AR100", 80),
    "coco": ({"bbox", "segm"}, "AR100", 80),
    "voc": ({"bbox"}, "AP_11point", 20),
    "lvis": ({"bbox", "segm"}, "APr", 1230),
}
# A network and images so small that a training takes seconds; it finds all and knows nothing.
SMALL = shlex.split(
    "MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.STEM_OUT_CHANNELS 8 MODEL.RESNETS.RES2_OUT_CHANNELS 8 "
    "MODEL.RESNETS.NORM BN MODEL.FPN.NORM '' MODEL.FPN.OUT_CHANNELS 16 "
    "MODEL.ROI_BOX_HEAD.FC_DIM 32 MODEL.ROI_MASK_HEAD.CONV_DIM 16 MODEL.RPN.POST_NMS_TOPK_TEST 20 "
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 TEST.DETECTIONS_PER_IMAGE 10 TEST.EVAL_PERIOD 0 "
    "INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 INPUT.MAX_SIZE_TEST 96 "
    "DATALOADER.NUM_WORKERS 0 SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 SOLVER.WARMUP_ITERS 1 "
    "SOLVER.STEPS () TEST.PRECISE_BN.ENABLED False"
)


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture
def names(form, samples, catalog):
    return [name.format(samples) for name in FORMS[form]]


@pytest.fixture
def call(capsys):
    """Does what a command does, and returns what it prints."""

    def call(command, *words):
        command.main(list(map(str, words)))
        return capsys.readouterr().out

    return call


def test_by_commands_alone_they_are_seen_learned_measured_found_and_exported(
    form, names, call, tmp_path
):
    """ONNX takes PyTorch a minute to trace, whatever the data: one form is enough for it."""
    to = "onnx" if form == "polygons" and find_spec("onnxruntime") else "torchscript"
    tasks, metric, classes = MEASURED[form]
    config, run = tmp_path / "run.yaml", tmp_path / "run"
    train_on, test_on = names
    data = (train_on, "--val", test_on)
    assert "The checks before a training pass." in call(check_data, *data)
    call(show_data, *data, "--images", 1, "--output", tmp_path / "data.html")
    assert (tmp_path / "data.html").read_text().count("<img") >= 3
    assert f"--config-file {config}" in call(init_config, *data, "--output", config)
    call(train, "--config-file", config, *SMALL, "OUTPUT_DIR", run)
    (record,) = read_records(run)
    assert set(record.metrics) == tasks and metric in record.metrics["bbox"]
    assert len(read_classes(run)) == classes and (run / "report.html").is_file()

    (results,) = run.rglob("coco_instances_results.json")
    call(evaluate, results, "--dataset", test_on, "--json", tmp_path / "numbers.json")
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    for task in tasks:
        kept = {name: record.metrics[task][name] for name in numbers[task]}
        assert numbers[task] == pytest.approx(kept, abs=1e-9)

    pictures = [entry["file_name"] for entry in load_dataset(test_on)[:2]]
    assert "in 2 pictures, 0 skipped" in call(
        predict, "--run", run, *pictures, "--output", tmp_path / "found"
    )
    file = tmp_path / f"model.{to}"
    assert f"written: {file}" in call(export, "--run", run, "--to", to, file)


def test_what_is_converted_is_the_same_ground_truth_box_for_box(names, tmp_path):
    dicts = load_dataset(names[0])
    converted = convert(names[0])
    file = tmp_path / "converted.json"
    file.write_text(json.dumps(converted.content))
    again = load_dataset(f"coco:{file}:{converted.image_root}")
    assert [each["file_name"] for each in again] == [each["file_name"] for each in dicts]
    for key in ("bbox", "category_id", "segmentation"):
        found, expected = (
            [entry.get(key) for each in of for entry in each["annotations"]]
            for of in (again, dicts)
        )
        assert found == expected, key
