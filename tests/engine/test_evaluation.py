import json
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.data import MetadataCatalog

from virtex_det.benchmark import read_records
from virtex_det.engine import Trainer, evaluate, load_trained, read_classes
from virtex_det.errors import UserError


@pytest.fixture
def trained(detector_cfg) -> Path:
    cfg = detector_cfg("DATASETS.TRAIN", '("scenes_train",)')
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return Path(cfg.OUTPUT_DIR)


def test_evaluation_alone_gives_what_training_gave_and_needs_no_training_data(
    trained, detector_cfg, tmp_path
):
    weights = trained / "model_final.pth"
    cfg = detector_cfg(
        "MODEL.WEIGHTS", weights, "OUTPUT_DIR", tmp_path / "eval", "DATASETS.TRAIN", '("nowhere",)'
    )
    (tmp_path / "eval").mkdir()
    evaluate(cfg)
    alone, in_training = read_records(tmp_path / "eval")[-1], read_records(trained)[-1]
    assert alone.metrics == in_training.metrics
    assert alone.iteration == in_training.iteration == 4
    assert alone.training_seconds == in_training.training_seconds > 0
    assert alone.evaluated["path"] == str(weights)
    assert alone.evaluated["format"] == "detector"
    assert alone.weights["format"] == "random init"


def test_evaluation_in_the_run_folder_adds_a_record_and_keeps_the_load_report(
    trained, detector_cfg
):
    before = (trained / "load_report.json").read_text()
    evaluate(detector_cfg(), resume=True)
    assert (trained / "load_report.json").read_text() == before
    assert len(read_records(trained)) == 2


def test_a_backbone_alone_is_not_evaluated_under_random_heads(
    trained, detector_cfg, pretraining_cfg
):
    cfg = pretraining_cfg("SOLVER.MAX_ITER", 2)
    pretraining = Trainer(cfg)
    pretraining.resume_or_load(resume=False)
    pretraining.train()
    with pytest.raises(UserError, match="does not fill the whole model"):
        evaluate(detector_cfg("MODEL.WEIGHTS", Path(cfg.OUTPUT_DIR) / "model_final.pth"))


def test_no_weights_is_an_error(detector_cfg):
    with pytest.raises(UserError, match="MODEL.WEIGHTS is empty"):
        evaluate(detector_cfg())


def test_nothing_to_resume_is_an_error(detector_cfg):
    with pytest.raises(UserError, match="no checkpoint"):
        evaluate(detector_cfg(), resume=True)


def test_nothing_to_evaluate_on_is_an_error(detector_cfg):
    with pytest.raises(UserError, match="DATASETS.TEST is empty"):
        evaluate(detector_cfg("DATASETS.TEST", "()"))


@pytest.fixture
def pretrained(pretraining_cfg) -> Path:
    cfg = pretraining_cfg()
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return Path(cfg.OUTPUT_DIR)


def test_a_pretrained_model_is_evaluated_by_its_loss_and_its_captions(
    pretrained, pretraining_cfg, monkeypatch, tmp_path
):
    monkeypatch.setattr(
        "virtex_det.evaluation.captions.caption_metrics", lambda *captions: {"BLEU_4": 12.5}
    )
    options = ("MODEL.WEIGHTS", pretrained / "model_final.pth", "OUTPUT_DIR", tmp_path / "eval")
    results = evaluate(pretraining_cfg("DATASETS.TEST", '("scenes_val_captions",)', *options))
    assert results["captions"] == {"BLEU_4": 12.5}
    assert read_records(tmp_path / "eval")[-1].metrics == results
    rows = json.loads((tmp_path / "eval/inference/scenes_val_captions/captions.json").read_text())
    assert len(rows) == 4 and all(isinstance(row["caption"], str) for row in rows)


def test_a_run_that_goes_on_gets_back_what_its_folder_has_lost(pretrained, pretraining_cfg):
    kept = pretrained / "vocabulary.model"
    content = kept.read_bytes()
    kept.unlink()
    trainer = Trainer(pretraining_cfg())
    trainer.resume_or_load(resume=True)
    trainer.train()
    assert kept.read_bytes() == content


def test_without_decoding_there_is_the_loss_alone(pretrained, pretraining_cfg):
    options = ("DATASETS.TEST", '("scenes_val_captions",)', "MODEL.TEXTUAL.DECODING.METHOD", "none")
    results = evaluate(pretraining_cfg(*options), resume=True)
    assert results.keys() == {"validation"}
    assert not list(pretrained.rglob("captions.json"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="caption metrics run on Java")
def test_captions_are_measured_with_the_standard_metrics(pretrained, pretraining_cfg):
    results = evaluate(pretraining_cfg("DATASETS.TEST", '("scenes_val_captions",)'), resume=True)
    assert {"BLEU_1", "BLEU_4", "METEOR", "ROUGE_L", "CIDEr"} <= results["captions"].keys()


def test_a_multilabel_model_is_evaluated_by_its_loss_on_a_dataset_with_boxes(
    pretraining_cfg, tmp_path
):
    options = (
        "MODEL.META_ARCHITECTURE MultilabelClassificationModel MODEL.CLASSIFIER.NUM_CLASSES 8 "
        "DATALOADER.MAPPER MultilabelMapper "
        "DATASETS.TRAIN ('scenes_train',) DATASETS.TEST ('scenes_val',)"
    ).split()
    trainer = Trainer(pretraining_cfg(*options))
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert evaluate(pretraining_cfg(*options), resume=True).keys() == {"validation"}


def test_a_run_keeps_the_names_of_its_classes_in_its_folder_and_in_its_checkpoints(trained):
    classes = MetadataCatalog.get("scenes_train").thing_classes
    assert list(read_classes(trained)) == classes
    assert torch.load(trained / "model_final.pth", weights_only=True)["classes"] == classes


def test_a_model_of_another_function_than_the_trained_one_is_named(trained, detector_cfg, caplog):
    weights = str(trained / "model_final.pth")
    load_trained(detector_cfg("MODEL.WEIGHTS", weights), weights)
    assert "was trained with" not in caplog.text
    other = detector_cfg("MODEL.RPN.BBOX_REG_WEIGHTS", (2.0, 2.0, 1.0, 1.0))
    load_trained(other, weights)
    assert (
        "model_final.pth was trained with MODEL.RPN.BBOX_REG_WEIGHTS [1.0, 1.0, 1.0, 1.0], and the "
        "config has [2.0, 2.0, 1.0, 1.0]" in caplog.text
    )


def test_weights_beside_a_damaged_config_are_evaluated(trained, detector_cfg, caplog):
    (trained / "config.yaml").write_text("[")
    load_trained(detector_cfg(), str(trained / "model_final.pth"))
    assert "was trained with" not in caplog.text
