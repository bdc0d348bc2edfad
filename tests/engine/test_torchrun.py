"""Several CPU processes under torchrun, as a user starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_two_processes_train_and_evaluate_one_model(detector_cfg, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(detector_cfg("OUTPUT_DIR", tmp_path / "run", "SOLVER.MAX_ITER", 2).dump())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "tools/train_net.py", "--config-file", str(config)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(record["metrics"]) == {"bbox", "segm"}
    assert len((tmp_path / "run" / "results.jsonl").read_text().splitlines()) == 1
