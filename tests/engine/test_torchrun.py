"""Several CPU processes under torchrun, as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from virtex_det.engine.lock import LOCK, keep_locked
from virtex_det.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = [
    sys.executable,
    *["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
]


@pytest.mark.slow
def test_two_processes_train_and_evaluate_one_model(detector_cfg, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(detector_cfg("OUTPUT_DIR", tmp_path / "run", "SOLVER.MAX_ITER", 2).dump())
    done = subprocess.run(
        [*TORCHRUN, "tools/train_net.py", "--config-file", str(config)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(record["metrics"]) == {"bbox", "segm"}
    assert len((tmp_path / "run" / "results.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_torchrun_ends_its_processes_which_save(
    detector_cfg, tmp_path, monkeypatch, number
):
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(
        detector_cfg("OUTPUT_DIR", run, "SOLVER.MAX_ITER", 100_000, "DATASETS.TEST", "()").dump()
    )
    with (tmp_path / "output").open("wb") as output:
        launcher = subprocess.Popen(
            [*TORCHRUN, "tools/train_net.py", "--config-file", str(config)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    while "training: 1 of" not in (tmp_path / "output").read_text():
        assert launcher.poll() is None, (tmp_path / "output").read_text()[-3000:]
        time.sleep(0.1)
    launcher.send_signal(number)
    launcher.wait()
    monkeypatch.setattr("virtex_det.engine.lock.PATIENCE", 120.0)
    try:
        keep_locked(run)  # when the main process has ended
    except UserError:
        os.kill(int((run / LOCK).read_text().split()[1]), signal.SIGKILL)
        raise
    assert (run / "last_checkpoint").exists()
    assert "interrupted by SIGTERM" in (tmp_path / "output").read_text()
