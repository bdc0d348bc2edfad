"""SOLVER.AMP, the one switch of mixed precision, and its effect on each device.

float16 is Detectron2's AMP: autocast with scaled losses in training, float32 in evaluation. It
needs CUDA; elsewhere training uses bfloat16 instead. bfloat16 is autocast without scaled losses, in
training and in evaluation.
"""

from detectron2.config import CfgNode

DTYPES = ("float16", "bfloat16")


def computes_in_bfloat16(cfg: CfgNode) -> bool:
    """Say whether the model computes in bfloat16, in training and in evaluation."""
    return cfg.SOLVER.AMP.ENABLED and cfg.SOLVER.AMP.DTYPE == "bfloat16"


def scales_losses(cfg: CfgNode) -> bool:
    """Say whether training steps compute in float16, which needs scaled losses."""
    return cfg.SOLVER.AMP.ENABLED and cfg.SOLVER.AMP.DTYPE == "float16"


def precision_in_words(cfg: CfgNode) -> str:
    """Return a sentence for the log: what SOLVER.AMP does on MODEL.DEVICE."""
    device = cfg.MODEL.DEVICE
    if not cfg.SOLVER.AMP.ENABLED:
        return f"Precision on {device}: float32"
    if computes_in_bfloat16(cfg):
        return (
            f"Mixed precision on {device}: bfloat16 in training and evaluation; "
            "weights stay float32"
        )
    if device.startswith("cuda"):
        return (
            f"Mixed precision on {device}: float16 with scaled losses in training, "
            "float32 in evaluation"
        )
    return (
        f"Precision on {device}: float32 in evaluation, since float16 is for training on CUDA "
        "GPUs. For evaluation in mixed precision set SOLVER.AMP.DTYPE bfloat16"
    )
