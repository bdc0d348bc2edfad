"""A look at real data of each form, their conversion, and a config made for them."""

import json

import pytest

from tests.test_real_data import NARROW, NARROW_HEADS, SHORT, record, run
from virtex_det.data.datasets import load_dataset
from virtex_det.own_data.conversion import convert
from virtex_det.own_data.first_config import Machine, choose
from virtex_det.own_data.look import divide, look_at
from virtex_det.own_data.start_weights import find_start

__all__ = ["run"]

pytestmark = pytest.mark.slow
INSTANCES = "coco_mini/annotations/instances_{0}2017.json:{root}/coco_mini/{0}2017"
FORMS = {
    "yolo": ["yolo:{root}/coco128/data.yaml:train", "yolo:{root}/coco128/data.yaml:val"],
    "polygons": ["yolo:{root}/coco128_seg/data.yaml:train"],
    "voc": ["voc:{root}/voc_mini/VOC2007:trainval", "voc:{root}/voc_mini/VOC2007:test"],
    "lvis": ["lvis:{root}/lvis_100/annotations/lvis_val_9_with_images.json:{root}/lvis_100"],
}


@pytest.fixture(params=[*FORMS, "coco"])
def names(request, samples):
    if request.param == "coco":
        return [f"coco:{samples}/" + INSTANCES.format(s, root=samples) for s in ("train", "val")]
    return [name.format(root=samples) for name in FORMS[request.param]]


def test_they_pass_the_checks_and_get_a_config_with_their_masks(names):
    look = look_at(*divide(names))
    assert not look.problems and not look.shared
    assert len(look.train) + len(look.val) == len(names)
    has_masks = not names[0].startswith("voc") and "/coco128/" not in names[0]
    cfg = choose(look, find_start("torchvision_resnet18"), Machine(1, 24, 8), "output").cfg
    assert cfg.MODEL.MASK_ON == has_masks
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == len(look.train[0].classes)


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


def test_a_config_for_them_trains_evaluates_and_becomes_one_file(run, samples, tmp_path):
    names = [f"yolo:{samples}/coco128_seg/data.yaml:{split}" for split in ("train", "val")]
    config = tmp_path / "run.yaml"
    printed = run("init_config", *names, "--output", config)
    assert f"python tools/train_net.py --config-file {config}" in printed
    small = ("INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", 96)
    small += ("MODEL.RESNETS.NORM", "BN", "MODEL.FPN.NORM", "")  # group norm needs 32 channels
    keys = (*SHORT, *NARROW, *NARROW_HEADS, *small, "SOLVER.STEPS", "()", "TEST.EVAL_PERIOD", 0)
    folder = tmp_path / "run"
    run("train_net", "--config-file", config, *keys, "OUTPUT_DIR", folder)
    metrics = record(folder)["metrics"]
    assert {"AP", "AP50"} <= set(metrics["bbox"]) & set(metrics["segm"])
    file = tmp_path / "model.ts"
    # So early the model is sure of nothing.
    keys = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    assert f"written: {file}" in run("export", "--run", folder, "--to", "torchscript", file, *keys)
