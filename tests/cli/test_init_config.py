import pytest

from tests.data.datasets.conftest import catalog, write_image, yolo
from virtex_det.cli import init_config
from virtex_det.config import load_config
from virtex_det.data.datasets.by_name import read_found
from virtex_det.errors import UserError
from virtex_det.own_data.step_time import StepTime

__all__ = ["catalog", "write_image", "yolo"]

SETTINGS = "train: images/train\nval: images/train\nnames: [nut, bolt]\n"


@pytest.fixture
def name(yolo):
    return yolo({"a.jpg": "0 0.5 0.5 0.2 0.2", "b.jpg": "1 0.5 0.5 0.4 0.4"}, SETTINGS)


@pytest.fixture
def run(name, tmp_path, capsys):
    """Writes a config for a small data set; returns it with what was printed."""

    def run(*words, data=()):
        output = tmp_path / "run.yaml"
        names = data or [name, name.replace(":train", ":val")]
        init_config.main([*names, "--output", str(output), *words])
        return load_config(output), capsys.readouterr().out

    return run


def test_a_config_is_written_for_the_data_and_the_next_command_is_said(run, tmp_path):
    cfg, printed = run("--weights", "bicaptioning_R_50_L1_H2048")
    assert cfg.DATASETS.TRAIN == (f"yolo:{tmp_path}/data.yaml:train",)
    assert cfg.DATASETS.TEST == (f"yolo:{tmp_path}/data.yaml:val",)
    assert cfg.MODEL.WEIGHTS == "virtex://bicaptioning_R_50_L1_H2048"
    assert f"virtex-det train --config-file {tmp_path}/run.yaml" in printed and "epochs." in printed


def test_the_file_of_the_data_is_not_overwritten(name, tmp_path):
    with pytest.raises(UserError, match=r"data.yaml is an input, which would be overwritten"):
        init_config.main([name, "--output", str(tmp_path / "data.yaml"), "--overwrite"])
    assert "nut" in (tmp_path / "data.yaml").read_text()


def test_the_classes_of_the_option_are_those_of_the_config(run, name, tmp_path):
    words = ("--classes", '["bolt", ["screw", "nut"]]')
    cfg, _ = run(*words)
    assert cfg.DATASETS.CLASSES == ("bolt", ["screw", "nut"])
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert read_found(name).content["categories"][1]["name"] == "screw"
    with pytest.raises(UserError, match="Did you mean 'bolt'"):
        run("--classes", "bolts", "--overwrite")
    with pytest.raises(UserError, match=r"without labels(.*\n)*.*--classes bolt"):
        run("--classes", "bolt", "--overwrite", data=[name, f"folder:{tmp_path}"])


def test_small_says_how_long_an_epoch_takes(run, monkeypatch, tmp_path):
    monkeypatch.setattr(init_config, "time_steps", lambda cfg, images: StepTime(2, 120))
    _, printed = run("--small")
    said = "On this machine an epoch takes about 2 min (2 s a step)"
    assert said in printed and said in (tmp_path / "run.yaml").read_text()


def test_an_existing_file_stays_unless_it_may_be_replaced(run):
    run()
    with pytest.raises(UserError, match="exists"):
        run("--epochs", "3")
    assert run("--epochs", "3", "--overwrite")[0].SOLVER.MAX_ITER == 3


def test_data_that_cannot_be_trained_on_are_refused_before_anything_is_written(run, tmp_path):
    with pytest.raises(UserError, match="without labels"):
        run(data=[f"folder:{tmp_path}/images"])
    with pytest.raises(UserError, match="neither a file nor"):
        run("--weights", "no_such")
    assert not (tmp_path / "run.yaml").exists()
