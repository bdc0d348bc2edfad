import pytest

from tests.inference.conftest import write_run
from virtex_det.cli.export import main
from virtex_det.errors import UserError


@pytest.fixture
def run(detector_cfg, tmp_path):
    return write_run(detector_cfg("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0), tmp_path / "run")


def export(*words):
    main([str(word) for word in words])


def test_a_run_becomes_a_file_and_the_differences_are_printed(run, tmp_path, capsys):
    file = tmp_path / "model.ts"
    export("--run", run, "--to", "torchscript", file, "TEST.DETECTIONS_PER_IMAGE", 7)
    printed = capsys.readouterr().out
    assert file.exists() and f"written: {file}" in printed and "8 classes" in printed
    assert "96 x 96                      7" in printed and "batch of 2" in printed
    assert "outputs: boxes, scores, classes, masks" in printed


def test_weights_come_with_their_config_and_pictures_of_ones_own(run, scenes, tmp_path, capsys):
    picture = next((scenes / "val").glob("*.png"))
    words = ["--config-file", run / "config.yaml", "--to", "torchscript", "--pictures", picture]
    words += [tmp_path / "model.ts", "MODEL.WEIGHTS", run / "model_final.pth"]
    export(*words, "DATASETS.TEST", "()")
    assert capsys.readouterr().out.count(picture.name) == 3 + 2


def test_the_run_of_a_detector_is_needed(tmp_path, capsys):
    with pytest.raises(SystemExit):
        export("--to", "onnx", tmp_path / "model.onnx")
    assert "one of the arguments --run --config-file is required" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        export("--run", tmp_path, "--to", "caffe2", tmp_path / "model")
    assert "invalid choice: 'caffe2'" in capsys.readouterr().err
    with pytest.raises(UserError, match="is not a run folder"):
        export("--run", tmp_path, "--to", "torchscript", tmp_path / "model.ts")
