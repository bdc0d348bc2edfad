"""Configs of a matrix's runs."""

from pathlib import Path

from virtex_det.config import load_config
from virtex_det.experiments.configs import begun_config, is_probe, shared_options
from virtex_det.experiments.runs import Run

ROOT = Path(__file__).resolve().parents[2]
DETECTOR = ROOT / "configs/detectron2/scenes_segm.yaml"
PROBE = ROOT / "configs/probes/scenes_svm.yaml"


def test_a_probe_shares_no_schedule_with_the_fine_tunes_of_its_matrix():
    options = {"SOLVER.MAX_ITER": 9, "INPUT.MAX_VALUE": 255.0}
    words = ("DATASETS.TRAIN_FRACTION", "0.5", "TEST.EVAL_PERIOD", "0")
    later = ("INPUT.MAX_VALUE", "255.0")
    assert is_probe(PROBE) and shared_options(PROBE, options, 0.5) == (*words, *later)
    schedule = ("SOLVER.MAX_ITER", "9")
    assert shared_options(DETECTOR, options, 0.5) == (*words, *schedule, *later)


def test_only_what_data_decide_is_taken_from_a_run_folder(tmp_path):
    cfg = load_config(DETECTOR, [])
    run = Run(tmp_path, DETECTOR, (), 150)
    assert begun_config(cfg, [run]) == cfg, "no run has begun"
    (tmp_path / "config.yaml").write_text(load_config(DETECTOR, ["SEED", "7"]).dump())
    assert begun_config(cfg, [run]) == cfg, "its data are registered by the package"
    own = load_config(DETECTOR, ["DATASETS.TRAIN", "yolo:a.yaml:train"])
    (tmp_path / "config.yaml").write_text("MODEL: {MASK_ON: false}\nSEED: 7\n")
    begun = begun_config(own, [run])
    assert not begun.MODEL.MASK_ON and begun.SEED == own.SEED
