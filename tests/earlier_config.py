"""A whole config of a run of an earlier version, with the old names of keys."""

from typing import Any

from detectron2.config import CfgNode

SIZES = {
    "NUM_LAYERS": 4,
    "HIDDEN_SIZE": 1024,
    "ATTENTION_HEADS": 16,
    "FEEDFORWARD_SIZE": 4096,
    "DROPOUT": 0.1,
    "NORM_FIRST": False,
    "INIT_STD": 0.02,
}


def earlier_config(
    cfg: CfgNode, *, bf16: bool = False, rate: float = 0.0, multiplier: float = 1.0, **sizes: Any
) -> str:
    """Return the text of config.yaml.

    Args:
        cfg: a config with the current keys.
        bf16: MODEL.BF16.
        rate: SOLVER.BACKBONE_LR.
        multiplier: SOLVER.BACKBONE_MULTIPLIER, which was used if the rate was 0.
        sizes: values in MODEL.TEXT_ENCODER that differ from the defaults.
    """
    cfg = cfg.clone()
    cfg.defrost()
    del cfg.SOLVER.AMP["DTYPE"]
    cfg.MODEL.TEXT_ENCODER.update(SIZES | sizes)
    cfg.MODEL.BF16, cfg.SOLVER.BACKBONE_LR, cfg.SOLVER.BACKBONE_MULTIPLIER = bf16, rate, multiplier
    return cfg.dump()
