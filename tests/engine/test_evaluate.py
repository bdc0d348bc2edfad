from pathlib import Path

import pytest

from virtex_det.benchmark import read_records
from virtex_det.engine import Trainer, evaluate
from virtex_det.errors import UserError


@pytest.fixture
def trained(detector_cfg) -> Path:
    cfg = detector_cfg("DATASETS.TRAIN", '("scenes_train",)')
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return Path(cfg.OUTPUT_DIR)


def test_evaluation_alone_gives_what_training_gave_and_needs_no_training_data(trained, detector_cfg, tmp_path):
    weights = trained / "model_final.pth"
    cfg = detector_cfg("MODEL.WEIGHTS", weights, "OUTPUT_DIR", tmp_path / "eval", "DATASETS.TRAIN", '("nowhere",)')
    (tmp_path / "eval").mkdir()
    evaluate(cfg)
    alone, in_training = read_records(tmp_path / "eval")[-1], read_records(trained)[-1]
    assert alone.metrics == in_training.metrics
    assert alone.iteration == in_training.iteration == 4
    assert alone.evaluated["path"] == str(weights)
    assert alone.evaluated["format"] == "detector"
    assert alone.weights["format"] == "random init"


def test_evaluation_in_the_run_folder_adds_a_record_and_keeps_the_load_report(trained, detector_cfg):
    before = (trained / "load_report.json").read_text()
    evaluate(detector_cfg(), resume=True)
    assert (trained / "load_report.json").read_text() == before
    assert len(read_records(trained)) == 2


def test_a_backbone_alone_is_not_evaluated_under_random_heads(trained, detector_cfg, pretraining_cfg):
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
