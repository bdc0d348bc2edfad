"""A user's name for a model leads to its config and weights; other names get one clear error."""

import os
import shutil

import pytest
import torch

from tests.inference.conftest import ZOO_NAME, write_run
from virtex_det import load_config
from virtex_det.errors import UserError
from virtex_det.inference.trained import ATTENTION, CAPTIONS, DETECTION, run_config, trained_config


def test_the_last_checkpoint_comes_before_the_final_one_and_overrides_come_last(captioner_run):
    shutil.copy(captioner_run / "model_final.pth", captioner_run / "model_0000001.pth")
    (captioner_run / "last_checkpoint").write_text("model_0000001.pth")
    assert run_config(captioner_run).MODEL.WEIGHTS == str(captioner_run / "model_0000001.pth")
    cfg = run_config(
        captioner_run, ["MODEL.WEIGHTS", "other.pth", "MODEL.TEXTUAL.DECODING.BEAM_SIZE", "2"]
    )
    assert cfg.MODEL.WEIGHTS == "other.pth" and cfg.MODEL.TEXTUAL.DECODING.BEAM_SIZE == 2


def test_a_folder_without_a_config_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"not a run folder: it has no config.yaml"):
        run_config(tmp_path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_config_of_a_run_that_is_cut_short_is_not_filled_with_defaults(share, detector_run):
    path = detector_run / "config.yaml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: round(share * len(lines))]))
    with pytest.raises(UserError, match="config.yaml"):
        run_config(detector_run)
    sections = [place for place, line in enumerate(lines) if not line.startswith((" ", "-"))]
    path.write_text("".join(lines[: sections[round(share * len(sections))]]))
    with pytest.raises(
        UserError, match="config.yaml is cut short: its last key, VIS_PERIOD, is missing"
    ):
        run_config(detector_run)


@pytest.mark.parametrize(
    "name", ["config.yaml", "last_checkpoint", "model_final.pth", "vocabulary.model"]
)
def test_a_pipe_in_a_run_folder_is_named_and_not_waited_for(name, detector_run):
    (detector_run / name).unlink(missing_ok=True)
    os.mkfifo(detector_run / name)
    with pytest.raises(UserError, match=f"{name} is a named pipe"):
        run_config(detector_run)


def test_a_run_that_has_saved_nothing_says_what_it_has(detector_run):
    (detector_run / "model_final.pth").rename(detector_run / "model_0000499.pth")
    with pytest.raises(
        UserError, match="no trained weights: neither .* nor model_final.pth; it has model_0000499"
    ):
        trained_config(detector_run, task=DETECTION)
    cfg = trained_config(detector_run / "model_0000499.pth", task=DETECTION)
    assert cfg.MODEL.WEIGHTS == str(detector_run / "model_0000499.pth")


def test_a_file_takes_the_config_that_is_named(detector_run, tmp_path):
    file = shutil.move(detector_run / "model_final.pth", tmp_path / "alone.pth")
    for config in (detector_run / "config.yaml", load_config(detector_run / "config.yaml")):
        cfg = trained_config(file, config, {"TEST.DETECTIONS_PER_IMAGE": 7}, task=DETECTION)
        assert cfg.MODEL.WEIGHTS == str(file) and cfg.TEST.DETECTIONS_PER_IMAGE == 7


def test_a_file_without_a_config_asks_for_it(tmp_path):
    torch.save({}, tmp_path / "alone.pth")
    with pytest.raises(
        UserError, match=r"a file without a config.*\n.*Detector\('.*alone.pth', 'config.yaml'\)"
    ):
        trained_config(tmp_path / "alone.pth", task=DETECTION)


def test_a_run_has_a_config_of_its_own(detector_run):
    with pytest.raises(
        UserError, match="is a run folder, which has its own config. Leave out other.yaml"
    ):
        trained_config(detector_run, "other.yaml", task=DETECTION)


def test_a_config_that_has_weights_is_enough(detector_run):
    cfg = load_config(
        detector_run / "config.yaml", {"MODEL.WEIGHTS": detector_run / "model_final.pth"}
    )
    assert trained_config(cfg, task=DETECTION).MODEL.WEIGHTS == str(
        detector_run / "model_final.pth"
    )
    with pytest.raises(
        UserError, match="MODEL.WEIGHTS is empty: virtex_det.Detector needs a trained model"
    ):
        trained_config(load_config(detector_run / "config.yaml"), task=DETECTION)


def test_the_device_of_a_gpus_run_gives_way_and_the_one_asked_for_counts(detector_run):
    config = detector_run / "config.yaml"
    config.write_text(config.read_text().replace("DEVICE: cpu", "DEVICE: cuda:7"))
    assert "cuda:7" in config.read_text()
    assert trained_config(detector_run, task=DETECTION).MODEL.DEVICE in ("cpu", "cuda")
    with pytest.raises(UserError, match="MODEL.DEVICE is 'cuda:99', but"):
        trained_config(detector_run, task=DETECTION, device="cuda:99")


def test_a_name_of_nothing_says_what_may_stand_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match="no run folder or weights file output/run.\n.*OUTPUT_DIR of a run"
    ):
        trained_config("output/run", task=DETECTION)
    with pytest.raises(UserError, match=f"The model zoo has virtex://{ZOO_NAME}"):
        trained_config(ZOO_NAME, task=CAPTIONS)
    with pytest.raises(
        UserError, match="no weights 'bicaptioning_R50'. Nearest names: bicaptioning_R_50_L1_H768"
    ):
        trained_config("virtex://bicaptioning_R50", task=CAPTIONS)


def test_a_pretraining_entry_of_the_zoo_is_no_detector_and_nothing_is_fetched(tiny_zoo, tmp_path):
    name = f"virtex://{ZOO_NAME}"
    with pytest.raises(UserError) as error:
        trained_config(name, task=DETECTION)
    assert f"{name} is a pretraining model (VirTex: bicaptioning" in str(error.value)
    assert "virtex_det.Detector needs a detector" in str(error.value)
    assert f"load_backbone('{name}')" in str(error.value) and f"MODEL.WEIGHTS {name}" in str(
        error.value
    )
    assert not (tmp_path / "cache").exists()


def test_a_backbone_of_the_zoo_writes_no_captions():
    with pytest.raises(
        UserError,
        match=r"virtex://clip_RN50 is a backbone only .*\n.*load_backbone\('virtex://clip_RN50'\)",
    ):
        trained_config("virtex://clip_RN50", task=CAPTIONS)


def test_a_name_of_the_zoo_is_the_whole_model(tiny_zoo, vocabulary):
    cfg = trained_config(
        f"virtex://{ZOO_NAME}", overrides={"INPUT.CAPTION.TOKENIZER": vocabulary}, task=CAPTIONS
    )
    assert (
        cfg.MODEL.META_ARCHITECTURE == "BicaptioningModel"
        and cfg.MODEL.WEIGHTS == f"virtex://{ZOO_NAME}"
    )
    assert cfg.INPUT.CAPTION.TOKENIZER == str(vocabulary)


@pytest.mark.parametrize("task", [CAPTIONS, ATTENTION])
def test_a_detector_says_who_takes_it(task, detector_run):
    with pytest.raises(
        UserError, match=r"is a detector \(GeneralizedRCNN\), but .*\nUse virtex_det.Detector"
    ):
        trained_config(detector_run, task=task)


@pytest.mark.parametrize("task", [DETECTION, ATTENTION])
def test_a_captioner_says_who_takes_it(task, captioner_run):
    with pytest.raises(
        UserError, match=r"model \(BicaptioningModel\), but .*\nUse virtex_det.Captioner"
    ):
        trained_config(captioner_run, task=task)


@pytest.mark.parametrize("task", [DETECTION, CAPTIONS, ATTENTION])
def test_any_other_pretraining_model_is_of_use_by_its_features(task, pretraining_cfg, tmp_path):
    options = (
        "MODEL.META_ARCHITECTURE TokenClassificationModel DATALOADER.MAPPER CaptionMapper"
    ).split()
    run = write_run(pretraining_cfg(*options), tmp_path / "tokens")
    with pytest.raises(
        UserError, match=r"\(TokenClassificationModel\), but .*\nvirtex_det.load_backbone"
    ):
        trained_config(run, task=task)


@pytest.mark.parametrize("source", [None, "", 7])
def test_an_invalid_name_is_refused_with_what_is_expected(source):
    with pytest.raises(
        UserError, match="virtex_det.Detector was given .*; expected the OUTPUT_DIR of a run"
    ):
        trained_config(source, task=DETECTION)


def test_an_address_needs_a_config_as_a_file_does():
    with pytest.raises(UserError, match=r"https://a.b/c.pth is a file without a config\.\n"):
        trained_config("https://a.b/c.pth", task=DETECTION)
