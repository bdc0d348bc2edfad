from pathlib import Path

import numpy as np
import pytest
import torch

from virtex_det.config import load_config, override
from virtex_det.errors import UserError


def test_the_home_directory_is_written_out_in_every_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my.yaml").write_text("MODEL:\n  WEIGHTS: ~/r50.pth\nOUTPUT_DIR: ~/run\n")
    cfg = load_config(str(tmp_path / "my.yaml"), ["INPUT.CAPTION.TOKENIZER", "~/a.model"])
    assert cfg.MODEL.WEIGHTS == f"{tmp_path}/r50.pth" and cfg.OUTPUT_DIR == f"{tmp_path}/run"
    assert cfg.INPUT.CAPTION.TOKENIZER == f"{tmp_path}/a.model"


def test_a_mapping_and_pairs_of_words_set_the_same():
    values = {
        "MODEL.PIXEL_MEAN": [1, 2.5, 3],
        "SOLVER.BASE_LR": 1,
        "MODEL.MASK_ON": True,
        "SEED": 7,
    }
    words = "MODEL.PIXEL_MEAN [1,2.5,3] SOLVER.BASE_LR 1 MODEL.MASK_ON True SEED 7".split()
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
        (["SEED"], "but the last key, 'SEED', has no value"),
        ({"SEEDS": 7}, "There is no config key SEEDS. The nearest: SEED"),
        ({"SEED": "many"}, "SEED is str, but must be of the type int|SEED"),
        ({3: 4}, "no config key 3"),
    ],
)
def test_overrides_of_an_invalid_form_are_an_error(overrides, message):
    with pytest.raises(UserError, match=message):
        load_config(overrides=overrides)


def test_overriding_a_config_returns_a_checked_copy():
    cfg = load_config()
    other = override(cfg, {"MODEL.RESNETS.DEPTH": 101})
    assert other.MODEL.RESNETS.DEPTH == 101 and other.is_frozen() and cfg.MODEL.RESNETS.DEPTH == 50
    with pytest.raises(UserError, match="MODEL.FPN.NORM is 'Bn'"):
        override(cfg, {"MODEL.FPN.NORM": "Bn"})
    with pytest.raises(UserError, match="MODEL.DEVICE is 'cuda:99'"):
        override(cfg, {"MODEL.DEVICE": "cuda:99"})


def test_a_schedule_is_scaled_once():
    scaled = load_config(
        overrides={
            "SOLVER.REFERENCE_FRACTION": 1.0,
            "DATASETS.TRAIN_FRACTION": 0.1,
            "SOLVER.MAX_ITER": 1000,
        }
    )
    assert scaled.SOLVER.MAX_ITER == override(scaled, {"SEED": 3}).SOLVER.MAX_ITER == 100


ODD_OVERRIDES = {
    "a section as a mapping": (
        {"SOLVER": {"BASE_LR": 0.1}},
        "SOLVER is a section.*one by one: SOLVER.BASE_LR",
    ),
    "a section as text": (
        ["SOLVER", "{'BASE_LR': 0.1}"],
        "SOLVER is .*, but it is a section. Set its keys: LR_",
    ),
    "an equals sign": (
        ["SEED=3", "VIS_PERIOD=1"],
        "no config key SEED=3. Write KEY VALUE, without a = between",
    ),
    "one equals sign": (["SEED=3"], "write no = between"),
    "lower case": (
        ["solver.base_lr", "0.1"],
        "no config key solver.base_lr. The nearest: SOLVER.BASE_LR",
    ),
    "a space after the key": (["SEED ", "3"], "no config key 'SEED '. The nearest: SEED"),
    "no key": (["", "3"], "no config key ''"),
    "a dot at the end": (
        ["SOLVER.BASE_LR.", "3"],
        "no config key SOLVER.BASE_LR.. The nearest: SOLVER.BASE_LR",
    ),
    "a key below a value": (["SEED.X", "3"], "no config key SEED.X. The nearest: SEED"),
    "an attribute of nodes": (["SOLVER.__class__", "3"], "no config key SOLVER.__class__"),
    "a number as a name": (["OUTPUT_DIR", "3"], """write quotes within quotes: "'3'\""""),
    "a name without quotes": (
        ["DATASETS.TRAIN", "(a, b)"],
        r"""Write a list, such as "\('a', 'b',\)".""",
    ),
    "a number for a list": (["SOLVER.STEPS", "30"], r"""such as "\(30,\)"."""),
    "yes for True": (["MODEL.MASK_ON", "yes"], "Write True or False"),
    "a number of 5000 digits": (
        ["SOLVER.MAX_ITER", "9" * 5000],
        "MAX_ITER is 9{200}\\.\\.\\., but must be",
    ),
    "100,000 brackets": (["SEED", "(" * 100_000], "SEED is \\({200}\\.\\.\\."),
    "a key of 20,000 characters": (["A." * 10_000, "3"], "no config key (A\\.){100}\\.\\.\\."),
    "nothing": (None, "The overrides are None; expected"),
    "a number": (3, "The overrides are 3; expected"),
    "bytes": (b"SEED 3", "The overrides are b'SEED 3'; expected"),
    "a set, which has no order": ({"SEED", "3"}, "The overrides are {.*}; expected"),
    "a generator for a list": (
        {"DATASETS.TRAIN": (x for x in "ab")},
        "DATASETS.TRAIN is <generator",
    ),
}


@pytest.mark.parametrize("name", ODD_OVERRIDES)
def test_odd_overrides_are_one_screen_with_what_to_write(name):
    overrides, message = ODD_OVERRIDES[name]
    with pytest.raises(UserError, match=message) as caught:
        load_config("detectron2/scenes_segm.yaml", overrides)
    assert len(str(caught.value)) < 2000


def test_numbers_of_numpy_and_pytorch_become_those_of_python():
    cfg = load_config(
        overrides={
            "SEED": np.int64(3),
            "SOLVER.BASE_LR": np.float32(0.5),
            "MODEL.PIXEL_MEAN": np.array([1.0, 2.0, 3.0]),
            "SOLVER.MAX_ITER": torch.tensor(7),
        }
    )
    assert cfg.MODEL.PIXEL_MEAN == [1.0, 2.0, 3.0]
    assert (cfg.SEED, cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER) == (3, 0.5, 7)


@pytest.mark.parametrize("name", [None, 3, b"x.yaml", ["x.yaml"]])
def test_a_config_file_that_is_not_a_name_is_an_error(name):
    with pytest.raises(UserError, match="The config file is given as a .*; expected its name"):
        load_config(name)


ODD_FILES = {
    "a dotted key": (
        "SOLVER.BASE_LR: 0.1\n",
        "SOLVER.BASE_LR is written as one name in the file, but SOLVER is a section",
    ),
    "a key without a name": ('"": 3\n', "no config key ''"),
    "lower case": ("model: {mask_on: true}\n", "no config key model. The nearest: MODEL"),
    "a set": ("SOLVER: {STEPS: !!set {1, 2}}\n", "!!set is not a plain value"),
    "bytes": ("OUTPUT_DIR: !!binary aGVsbG8=\n", "!!binary is not a plain value"),
    "an earlier version with a current key": (
        "VERSION: 1\nMODEL: {ANCHOR_GENERATOR: {SIZES: [[32]]}}\n",
        "VERSION 1, but the key MODEL.ANCHOR_GENERATOR.SIZES is of VERSION 2",
    ),
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_odd_files_are_one_screen_with_what_to_write(name, tmp_path):
    content, message = ODD_FILES[name]
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        load_config(tmp_path / "x.yaml")


def test_a_day_in_a_file_is_text(tmp_path):
    (tmp_path / "x.yaml").write_text("OUTPUT_DIR: 2024-01-01\n")
    assert load_config(tmp_path / "x.yaml").OUTPUT_DIR == "2024-01-01"


def test_the_error_for_a_folder_names_the_config_in_it(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(
        UserError, match=f"is a folder.*, not a config file. Its config is {tmp_path}/config.yaml"
    ):
        load_config(tmp_path)


def test_the_home_directory_is_written_out_in_the_name_of_a_config(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.yaml").write_text("SEED: 7\n")
    assert load_config("~/x.yaml").SEED == 7


@pytest.mark.parametrize("device", ["cpu:1", "cpu:0", "cpu:100"])
def test_there_is_one_cpu(device):
    with pytest.raises(UserError, match="PyTorch has a single CPU device, which is named cpu"):
        load_config(overrides={"MODEL.DEVICE": device})
