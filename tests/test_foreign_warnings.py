"""What a command prints besides its own words."""

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.conftest import TINY_DETECTOR
from virtex_det.foreign_warnings import silence_foreign_warnings

ROOT = Path(__file__).resolve().parents[1]


def warn(text, kind, module):
    warnings.warn_explicit(text, kind, f"{module}.py", 1, module=module, registry={})


def test_other_warnings_are_shown(recwarn):
    silence_foreign_warnings()
    heard = [
        ("torch.meshgrid: in an upcoming release", UserWarning, "somebodys.own"),
        ("torch.meshgrid does something else", UserWarning, "torch.functional"),
        ("The given NumPy array is not writable", UserWarning, "virtex_det.data.collate"),
        ("Grad strides are odd", UserWarning, "torch.autograd.graph"),
    ]
    for text, kind, module in heard:
        warn(text, kind, module)
    assert [str(warning.message) for warning in recwarn] == [text for text, _, _ in heard]


def test_foreign_warnings_are_not_shown(recwarn, caplog):
    silence_foreign_warnings()
    warn("`torch.jit.script` is deprecated. Please switch", FutureWarning, "torch.jit._script")
    warn("torch.meshgrid: in an upcoming release, it will be", UserWarning, "torch.functional")
    warn(
        "Detected call of `lr_scheduler.step()` before `optimizer.step()`.",
        UserWarning,
        "torch.optim.lr_scheduler",
    )
    warn(
        "Image size (120000000 pixels) exceeds limit, could be decompression bomb",
        RuntimeWarning,
        "PIL.Image",
    )
    warn(
        "Corrupt EXIF data.  Expecting to read 2 bytes but only got 0. ",
        UserWarning,
        "PIL.TiffImagePlugin",
    )
    logger = logging.getLogger("torch.utils.cpp_extension")
    assert not logger.filter(
        logger.makeRecord(logger.name, 30, "", 0, "No CUDA runtime is found, using", (), None)
    )
    assert logger.filter(logger.makeRecord(logger.name, 30, "", 0, "something else", (), None))
    assert not recwarn.list


@pytest.mark.slow
def test_training_and_evaluation_print_nothing_foreign(scenes, tmp_path):
    tool = "tools/train_net.py --config-file configs/detectron2/scenes_segm.yaml"
    options = f"SOLVER.MAX_ITER 2 DATALOADER.NUM_WORKERS 1 OUTPUT_DIR {tmp_path}"
    done = subprocess.run(
        [sys.executable, *tool.split(), *TINY_DETECTOR, *options.split()],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Warning" not in done.stdout
