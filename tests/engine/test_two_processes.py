"""Two CPU processes train as one process with the same total batch does."""

import json
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from tests.processes import launch_processes
from virtex_det.engine import Trainer

STEPS = 20
# Norms over the whole batch, no dropout, and the published rule: SGD, LookAhead, clipping, warm-up,
# cosine.
EXACT = (
    *("MODEL.RESNETS.NORM", "naiveSyncBN", "MODEL.TEXTUAL.DROPOUT", 0.0, "SOLVER.MAX_ITER", STEPS),
    *("SOLVER.IMS_PER_BATCH", 4, "SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 0.05),
    *("SOLVER.LOOKAHEAD.ENABLED", True, "SOLVER.CHECKPOINT_PERIOD", 1000),
    *("SOLVER.AMP.ENABLED", False),
)


class LossCurve(HookBase):
    """Writes the loss of every step."""

    def after_train(self) -> None:
        if comm.is_main_process():
            losses = self.trainer.storage.history("total_loss").values()
            path = Path(self.trainer.cfg.OUTPUT_DIR) / "curve.json"
            path.write_text(json.dumps([loss for loss, _ in losses]))


def run(cfg: CfgNode) -> None:
    seed_all_rng(cfg.SEED + comm.get_rank())
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.register_hooks([LossCurve()])
    trainer.train()


def losses(cfg: CfgNode, folder: Path, processes: int) -> list[float]:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = str(folder)
    cfg.freeze()
    launch_processes(run, cfg, processes=processes)
    return json.loads((folder / "curve.json").read_text())


@pytest.mark.slow
def test_the_loss_curve_is_that_of_one_process(pretraining_cfg, tmp_path):
    cfg = pretraining_cfg(*EXACT)
    one, two = losses(cfg, tmp_path / "one", 1), losses(cfg, tmp_path / "two", 2)
    assert len(one) == len(two) == STEPS
    assert one[-1] < one[0]
    assert two == pytest.approx(one, rel=1e-5)
