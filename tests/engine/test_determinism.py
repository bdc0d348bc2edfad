"""Seeds set everything: on a CPU the same command gives the same numbers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TINY_DETECTOR
from virtex_det.benchmark import read_records

ROOT = Path(__file__).resolve().parents[2]


def fine_tune(scenes: Path, folder: Path, *options: str):
    """Train and evaluate through the command line, in a process of its own; return the record."""
    # Enough, on the images that it was trained on, for numbers above zero.
    schedule = ("SOLVER.MAX_ITER", "30", "SOLVER.IMS_PER_BATCH", "4", "SOLVER.BASE_LR", "0.003")
    evaluation = "DATASETS.TEST ('scenes_train',) MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.001".split()
    config = ("--config-file", "configs/detectron2/scenes_segm.yaml")
    part = ("DATASETS.TRAIN_FRACTION", "0.9", "OUTPUT_DIR", str(folder))
    subprocess.run(
        [
            sys.executable,
            "tools/train_net.py",
            *config,
            *TINY_DETECTOR,
            *schedule,
            *evaluation,
            *part,
            *options,
        ],
        cwd=ROOT,
        env=os.environ | {"DETECTRON2_DATASETS": str(scenes.parent), "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    return read_records(folder)[-1]


@pytest.mark.slow
def test_the_same_command_gives_the_same_numbers_to_the_last_digit_and_another_seed_others(
    scenes, tmp_path
):
    first, second = (
        fine_tune(scenes, tmp_path / name, "SEED", "3") for name in ("first", "second")
    )
    assert first.metrics == second.metrics
    assert first.metrics["bbox"]["AP"] > 0, "numbers that are all zero are equal for nothing"
    other = fine_tune(scenes, tmp_path / "other", "SEED", "4")
    assert other.metrics != first.metrics
