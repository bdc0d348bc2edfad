from pathlib import Path

import pytest

from tests.processes import run_script
from virtex_det.cli.probe import main
from virtex_det.engine import load_config

ROOT = Path(__file__).resolve().parents[2]


def probe(*arguments):
    return run_script(ROOT / "tools" / "probe.py", *arguments, cwd=ROOT)


def load(name):
    return load_config(str(ROOT / "configs" / "probes" / name), [])


def test_help_says_what_each_probe_is():
    run = probe("--help")
    assert run.returncode == 0
    assert all(name in run.stdout for name in ("voc07", "svm", "imagenet", "inaturalist"))


def test_a_mistake_is_one_screen_and_exit_code_1(tmp_path):
    run = probe("voc07", "MODEL.WEIGHTS", tmp_path / "nowhere.pth")
    assert run.returncode == 1 and "nowhere.pth" in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize(
    "option", ["--folds=1", "--folds=x", "--costs=a,b", "--costs=-1", "--costs=nan", "--costs="]
)
def test_costs_and_folds_are_refused_before_anything_is_read(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["voc07", option])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "is not an integer" in error or "such as 0.1,1" in error


@pytest.mark.slow
def test_the_svm_probe_runs_on_real_photos(samples, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(samples))
    smoke = ROOT / "configs" / "probes" / "voc_mini_svm_smoke.yaml"
    run = probe(
        *("voc07", "--config-file", smoke, "--folds", 2, "--costs", "0.1,1"),
        *("OUTPUT_DIR", tmp_path, "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert '"dataset": "voc_mini_test"' in (tmp_path / "results.json").read_text()
    assert '"AP-person"' in (tmp_path / "results.json").read_text()


def test_the_linear_protocol():
    cfg = load("imagenet_linear.yaml")
    solver = cfg.SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.MOMENTUM, solver.WEIGHT_DECAY) == (
        256,
        0.3,
        0.9,
        0.0,
    )
    assert (solver.LR_SCHEDULER_NAME, solver.WARMUP_ITERS, solver.MAX_ITER) == (
        "WarmupCosineLR",
        0,
        500500,
    )
    assert (cfg.MODEL.BACKBONE.FREEZE_AT, cfg.MODEL.CLASSIFIER.NUM_CLASSES) == (5, 1000)
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("imagenet_train",), ("imagenet_val",))
    assert cfg.INPUT.CLASSIFICATION.CROP_SCALE == (0.08, 1.0)


def test_the_inaturalist_protocol():
    cfg = load("inaturalist_2018_finetune.yaml")
    solver = cfg.SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.MOMENTUM) == (256, 0.025, 0.9)
    assert (solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_NORM, solver.WEIGHT_DECAY_BIAS) == (
        1e-4,
        1e-4,
        None,
    )
    assert (solver.STEPS, solver.GAMMA, solver.WARMUP_ITERS) == ((119700, 153900), 0.1, 0)
    assert (solver.MAX_ITER, solver.AMP.ENABLED) == (171000, True)
    assert (cfg.MODEL.BACKBONE.FREEZE_AT, cfg.MODEL.CLASSIFIER.NUM_CLASSES) == (0, 8142)


@pytest.mark.parametrize("name", ["voc07_svm", "imagenet_linear", "inaturalist_2018_finetune"])
def test_every_probe_sees_images_as_virtex_does(name):
    images = load(f"{name}.yaml").INPUT.CLASSIFICATION
    assert (images.RESIZE, images.CROP_SIZE, images.FLIP_PROB) == (256, 224, 0.5)
