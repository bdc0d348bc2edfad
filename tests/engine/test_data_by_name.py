"""Data named by where they lie: trained on, evaluated, resumed and recorded, also after a move."""

import shutil
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from tests.conftest import TINY_DETECTOR
from tests.data.datasets.conftest import coco_content, voc_xml
from virtex_det.benchmark.records import read_records
from virtex_det.config import load_config
from virtex_det.engine import Trainer, argument_parser, evaluate, read_classes, setup
from virtex_det.errors import UserError
from virtex_det.yaml_files import read_yaml

CONFIG = "detectron2/_base_mask_rcnn_R_50_FPN.yaml"
OPTIONS = (
    *TINY_DETECTOR,
    *"MODEL.RESNETS.WIDTH_PER_GROUP 8 MODEL.RPN.POST_NMS_TOPK_TEST 20 SOLVER.STEPS (3,)".split(),
    *"INPUT.MIN_SIZE_TRAIN (40,) INPUT.MIN_SIZE_TEST 40 DATALOADER.NUM_WORKERS 0".split(),
    *"SOLVER.BASE_LR 0.001 TEST.PRECISE_BN.ENABLED False SEED 0".split(),
    *"MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 SOLVER.CHECKPOINT_PERIOD 2".split(),
)
LABELS = {f"{number}.jpg": f"{number % 2} 0.5 0.5 0.5 0.5" for number in range(4)}


@pytest.fixture
def tool(tmp_path):
    """Does what tools/train_net.py does, on data as TRAIN and TEST, in a run folder."""

    def call(*words: object, data: str = "", file: str | Path = CONFIG) -> Path:
        folder = tmp_path / "run"
        named = ("DATASETS.TRAIN", data, "DATASETS.TEST", data) if data else ()
        given = ["--config-file", file, *words, *named, "OUTPUT_DIR", folder]
        args = argument_parser().parse_args([str(word) for word in given])
        cfg = setup(args)
        if args.eval_only:
            evaluate(cfg, resume=args.resume)
            return folder
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
        return folder

    return call


def test_a_run_on_boxes_of_yolos_form_knows_classes_and_short_names(tool, yolo):
    name = yolo(LABELS)
    run = tool(*OPTIONS, data=name)
    config = read_yaml(run / "config.yaml")
    assert config["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] == 2 and not config["MODEL"]["MASK_ON"]
    assert config["DATASETS"]["TRAIN"] == [name] and read_classes(run) == ("nut", "bolt")
    (record,) = read_records(run)
    assert record.dataset == "yolo:data.yaml:train" and set(record.metrics) == {"bbox"}
    assert record.train_datasets == ("yolo:data.yaml:train",)
    assert list(record.train_versions) == ["yolo:data.yaml:train"]
    assert "DATASETS.TRAIN=yolo:data.yaml:train" in record.protocol
    assert [path.name for path in (run / "inference").iterdir()] == ["yolo_data.yaml_train"]


def test_a_run_whose_data_have_moved_is_resumed_and_evaluated_under_their_new_name(
    tool, yolo, tmp_path
):
    run = tool(*OPTIONS, data=yolo(LABELS))
    (first,) = read_records(run)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("images", "labels", "data.yaml"):
        shutil.move(tmp_path / name, moved / name)
    (run / "last_checkpoint").write_text("model_0000001.pth")
    name, file = f"yolo:{moved}/data.yaml:train", run / "config.yaml"
    tool("--resume", data=name, file=file)
    tool("--eval-only", "--resume", data=name, file=file)
    resumed, evaluated = read_records(run)
    assert resumed.metrics == evaluated.metrics == first.metrics
    assert resumed.config_sha256 == evaluated.config_sha256 == first.config_sha256
    assert resumed.dataset_version == first.dataset_version
    assert resumed.protocol == evaluated.protocol == first.protocol


def test_a_run_is_not_resumed_on_other_labels_or_another_split(tool, yolo, tmp_path):
    run = tool(*OPTIONS, data=(name := yolo(LABELS)))
    (run / "last_checkpoint").write_text("model_0000001.pth")
    (tmp_path / "labels/train/0.txt").write_text("1 0.5 0.5 0.4 0.4")
    DatasetCatalog.remove(name)  # a process reads the version of a data set once
    MetadataCatalog.remove(name)
    with pytest.raises(UserError, match="began with other training data:\n.*yolo:data.yaml:train"):
        tool("--resume", data=name, file=run / "config.yaml")
    with pytest.raises(UserError, match="began with other values:\n  DATASETS.TRAIN"):
        tool("--resume", data=name.replace(":train", ":val"), file=run / "config.yaml")


@pytest.mark.parametrize("library", ["hotcoco", "reference"])
def test_masks_of_cocos_form_are_trained_on_and_evaluated(library, tool, coco):
    name = coco(coco_content())
    run = tool(*OPTIONS, "TEST.METRICS_LIBRARY", library, data=name)
    (record,) = read_records(run)
    assert set(record.metrics) == {"bbox", "segm"} and record.dataset == "coco:instances.json"


def test_the_reference_evaluates_yolos_form_with_the_same_numbers(tool, yolo):
    run = tool(*OPTIONS, data=(name := yolo(LABELS)))
    words = ("--eval-only", "--resume", "TEST.METRICS_LIBRARY", "reference")
    tool(*words, data=name, file=run / "config.yaml")
    ours, theirs = (record.metrics["bbox"] for record in read_records(run))
    assert {key: ours[key] for key in theirs} == pytest.approx(theirs, nan_ok=True)
    assert theirs["AP"] > 0


def test_vocs_form_is_evaluated_by_vocs_metric(tool, voc):
    xml = voc_xml([("nut", (1, 1, 30, 20)), ("bolt", (20, 10, 50, 38))])
    run = tool(*OPTIONS, data=voc({"a": xml, "b": xml}))
    (record,) = read_records(run)
    assert "AP_11point" in record.metrics["bbox"] and record.dataset.startswith("voc:")


def test_classes_of_the_config_reach_model_record_and_evaluation(tool, yolo):
    run = tool(*OPTIONS, "DATASETS.CLASSES", "['bolt']", data=yolo(LABELS))
    (record,) = read_records(run)
    assert read_classes(run) == ("bolt",) and "AP-bolt" in record.metrics["bbox"]
    assert "AP-nut" not in record.metrics["bbox"] and record.train_images == 2
    assert read_yaml(run / "config.yaml")["DATASETS"]["CLASSES"] == ["bolt"]


def test_a_number_of_classes_that_contradicts_the_data_is_refused(tool, yolo):
    with pytest.raises(UserError, match="the detector has 80 classes, but data set yolo:.* has 2"):
        tool(*OPTIONS, "MODEL.ROI_HEADS.NUM_CLASSES", 80, data=yolo(LABELS))


def test_classes_of_two_data_sets_that_differ_are_refused(tool, yolo, tmp_path):
    name = yolo(LABELS)
    other = tmp_path / "other.yaml"
    other.write_text((tmp_path / "data.yaml").read_text().replace("[nut, bolt]", "[bolt, nut]"))
    with pytest.raises(UserError, match="have different classes"):
        tool(*OPTIONS, "DATASETS.TRAIN", name, "DATASETS.TEST", f"yolo:{other}:val")


def test_images_without_labels_cannot_be_trained_on_or_measured(tool, yolo, tmp_path):
    name = yolo(LABELS)
    with pytest.raises(UserError, match="without labels: there is nothing to measure"):
        tool(*OPTIONS, "DATASETS.TRAIN", name, "DATASETS.TEST", f"folder:{tmp_path}")
    with pytest.raises(UserError, match="A detector learns from boxes|names no classes"):
        tool(*OPTIONS, "DATASETS.TRAIN", f"folder:{tmp_path}", "DATASETS.TEST", "()")


def test_a_config_with_the_number_of_the_data_predicts_with_that_of_the_weights(tool, yolo):
    from virtex_det import Detector

    run = tool(*OPTIONS, data=(name := yolo(LABELS)))
    keys = dict(zip(OPTIONS[::2], OPTIONS[1::2], strict=True))
    cfg = load_config(CONFIG, {**keys, "DATASETS.TEST": name, "MODEL.MASK_ON": False})
    detector = Detector(run / "model_final.pth", config=cfg)
    assert detector.cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
