"""Matrices on data named by where they lie."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import TINY_DETECTOR
from virtex_det.config import load_config
from virtex_det.data.following import follow_data
from virtex_det.errors import UserError
from virtex_det.experiments.configs import config_of
from virtex_det.experiments.matrix import Matrix, measured, report
from virtex_det.experiments.preflight import check_folders, check_sources

BASE = "_BASE_: detectron2/_base_mask_rcnn_R_50_FPN.yaml\n"
LABELS = {f"{number}.jpg": f"{number % 2} 0.5 0.5 0.5 0.5" for number in range(4)}


@pytest.fixture
def matrix(tmp_path, yolo):
    """A matrix with two choices of classes of the same data."""
    name = yolo(LABELS)
    text = f"{BASE}DATASETS:\n  TRAIN: '{name}'\n  TEST: '{name.replace(':train', ':val')}'\n"
    (tmp_path / "both.yaml").write_text(text)
    (tmp_path / "one.yaml").write_text(f"{text}  CLASSES: [bolt]\n")
    config_of.cache_clear()
    return Matrix(
        title="",
        output=tmp_path / "runs",
        protocols={"both": tmp_path / "both.yaml", "one": tmp_path / "one.yaml"},
        starts={"random init": ""},
        fractions=(1.0,),
        seeds=(0,),
        options=dict(zip(TINY_DETECTOR[::2], TINY_DETECTOR[1::2], strict=True)),
    )


def begin(run) -> None:
    """Leave the config that a run writes into its folder."""
    cfg = follow_data(load_config(run.config, [*run.options, "OUTPUT_DIR", str(run.folder)]))
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text(cfg.dump())


def test_protocols_may_choose_other_classes_of_the_same_data(matrix):
    check_sources(matrix.runs())
    ids = [matrix.protocol_id(name, 1.0) for name in ("both", "one")]
    assert ids[0] != ids[1] and all("DATASETS.CLASSES" in words for words in ids[1:])
    assert {run.dataset for run in matrix.runs()} == {"yolo:data.yaml:val"}


def test_a_card_says_what_a_run_took_from_its_data_without_loading_them(matrix, tmp_path):
    assert "NUM_CLASSES 0" in matrix.cards()["both"]["departs"]
    begin(matrix.runs()[0])
    shutil.rmtree(tmp_path / "labels")
    card = matrix.cards()["both"]
    assert "NUM_CLASSES 2" in card["departs"] and card["detector"].startswith("Faster R-CNN")


@pytest.mark.parametrize("where", ["here", "moved", "gone"])
def test_a_runs_folder_is_known_wherever_its_data_are(where, matrix, tmp_path):
    run = matrix.runs()[0]
    begin(run)
    if where == "moved":
        (tmp_path / "moved").mkdir()
        for name in ("images", "labels", "data.yaml"):
            shutil.move(tmp_path / name, tmp_path / "moved" / name)
        config = Path(run.config)
        config.write_text(config.read_text().replace(str(tmp_path), f"{tmp_path}/moved"))
    if where == "gone":
        shutil.rmtree(tmp_path / "labels")
    config_of.cache_clear()
    check_folders([run])


def test_a_folder_of_other_classes_is_refused(matrix):
    both, one = matrix.runs()
    begin(both)
    both.folder.rename(one.folder)
    with pytest.raises(UserError, match="DATASETS.CLASSES"):
        check_folders([one])


def test_data_that_cannot_be_used_are_named_before_a_run(matrix, tmp_path):
    (tmp_path / "labels/train/1.txt").write_text("7 0.5 0.5 0.5 0.5")
    config_of.cache_clear()
    with pytest.raises(UserError, match="1 objects have a class that"):
        check_sources(matrix.runs())


@pytest.mark.parametrize("are_there", [True, False])
def test_the_report_shows_images_with_the_classes_of_the_protocol(
    are_there, matrix, make_record, tmp_path
):
    matrix = replace(matrix, protocols={"one": matrix.protocols["one"]})
    (run,) = matrix.runs()
    detections = run.folder / "inference/yolo_data.yaml_val/coco_instances_results.json"
    detections.parent.mkdir(parents=True)
    found = {"category_id": 0, "bbox": [15, 10, 30, 20], "score": 0.9}  # 0 is bolt, in the file nut
    detections.write_text(json.dumps([{**found, "image_id": "images/train/1.jpg"}]))
    record = make_record(fraction=1.0, iteration=4)
    replace(record, dataset="yolo:data.yaml:val").write(run.folder)
    (run.folder / "model_final.pth").touch()
    if not are_there:
        shutil.rmtree(tmp_path / "images")
    report(matrix, measured(matrix), tmp_path / "page.html")
    assert ("1 found, 0 missed" in (tmp_path / "page.html").read_text()) == are_there
