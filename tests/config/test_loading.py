from pathlib import Path

import pytest

from virtex_det.config import load_config, override
from virtex_det.errors import UserError


def test_the_home_directory_is_written_out_in_every_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my.yaml").write_text("MODEL:\n  WEIGHTS: ~/r50.pth\nOUTPUT_DIR: ~/run\n")
    cfg = load_config(str(tmp_path / "my.yaml"), ["INPUT.CAPTION.TOKENIZER", "~/a.model"])
    assert cfg.MODEL.WEIGHTS == f"{tmp_path}/r50.pth" and cfg.OUTPUT_DIR == f"{tmp_path}/run"
    assert cfg.INPUT.CAPTION.TOKENIZER == f"{tmp_path}/a.model"


def test_a_mapping_and_pairs_of_words_set_the_same():
    values = {"MODEL.PIXEL_MEAN": [1, 2.5, 3], "SOLVER.BASE_LR": 1, "MODEL.MASK_ON": True, "SEED": 7}
    words = ["MODEL.PIXEL_MEAN", "[1, 2.5, 3]", "SOLVER.BASE_LR", "1", "MODEL.MASK_ON", "True", "SEED", "7"]
    assert load_config(overrides=values) == load_config("", words) == load_config("", tuple(words))
    assert load_config(overrides=values).SOLVER.BASE_LR == 1.0


def test_paths_are_taken_as_text(tmp_path):
    (tmp_path / "my.yaml").write_text("SEED: 3\n")
    cfg = load_config(tmp_path / "my.yaml", {"MODEL.WEIGHTS": Path("a.pth")})
    assert cfg.SEED == 3 and cfg.MODEL.WEIGHTS == "a.pth" and cfg.is_frozen()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("SEED 7", 'The overrides are .SEED 7.; expected {"KEY": value}'),
        (["SEED"], "'SEED' at their end has no partner"),
        ({"SEEDS": 7}, "There is no config key SEEDS. The nearest: SEED"),
        ({"SEED": "many"}, "SEED is str, but must be of the type int|SEED"),
        ({3: 4}, "no config key 3|does not fit"),
    ],
)
def test_overrides_of_another_form_are_told_so(overrides, message):
    with pytest.raises(UserError, match=message):
        load_config(overrides=overrides)


def test_a_config_that_is_there_is_overridden_as_a_copy_and_checked():
    cfg = load_config()
    other = override(cfg, {"MODEL.RESNETS.DEPTH": 101})
    assert other.MODEL.RESNETS.DEPTH == 101 and other.is_frozen() and cfg.MODEL.RESNETS.DEPTH == 50
    with pytest.raises(UserError, match="MODEL.FPN.NORM is 'Bn'"):
        override(cfg, {"MODEL.FPN.NORM": "Bn"})
    with pytest.raises(UserError, match="MODEL.DEVICE is 'cuda:99'"):
        override(cfg, {"MODEL.DEVICE": "cuda:99"})


def test_a_schedule_is_scaled_once():
    scaled = load_config(
        overrides={"SOLVER.REFERENCE_FRACTION": 1.0, "DATASETS.TRAIN_FRACTION": 0.1, "SOLVER.MAX_ITER": 1000}
    )
    assert scaled.SOLVER.MAX_ITER == override(scaled, {"SEED": 3}).SOLVER.MAX_ITER == 100
