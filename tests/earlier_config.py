"""A whole config as a run of an earlier version wrote it, with the keys that have other names now."""

from typing import Any

from detectron2.config import CfgNode

SIZES = {
    **{"NUM_LAYERS": 4, "HIDDEN_SIZE": 1024, "ATTENTION_HEADS": 16, "FEEDFORWARD_SIZE": 4096},
    **{"DROPOUT": 0.1, "NORM_FIRST": False, "INIT_STD": 0.02},
}


def earlier_config(
    cfg: CfgNode, *, bf16: bool = False, rate: float = 0.0, multiplier: float = 1.0, **sizes: Any
) -> str:
    """Return the text of config.yaml.

    Args:
        cfg: with today's keys.
        bf16: MODEL.BF16.
        rate: SOLVER.BACKBONE_LR.
        multiplier: SOLVER.BACKBONE_MULTIPLIER, which counted where the rate was 0.
        sizes: below MODEL.TEXT_ENCODER, where they are not the defaults.
    """
    cfg = cfg.clone()
    cfg.defrost()
    del cfg.SOLVER.AMP["DTYPE"]
    cfg.MODEL.TEXT_ENCODER.update(SIZES | sizes)
    cfg.MODEL.BF16, cfg.SOLVER.BACKBONE_LR, cfg.SOLVER.BACKBONE_MULTIPLIER = bf16, rate, multiplier
    return cfg.dump()
