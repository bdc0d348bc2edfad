"""What holds for the pretraining configs of every method after VirTex."""

from pathlib import Path

from detectron2.config import CfgNode

from virtex_det.engine import load_config

PRETRAIN = Path(__file__).resolve().parents[1] / "configs" / "pretrain"


def load(name: str, *overrides: object) -> CfgNode:
    """Return a config of configs/pretrain by its name there."""
    return load_config(str(PRETRAIN / f"{name}.yaml"), [*overrides])


def check_task(name: str, expected: tuple[str, ...]) -> None:
    """Check a config's meta-architecture, mapper and training sets."""
    cfg = load(name)
    assert (cfg.MODEL.META_ARCHITECTURE, cfg.DATALOADER.MAPPER, *cfg.DATASETS.TRAIN) == expected
    assert cfg.MODEL.TEXTUAL.VOCAB_SIZE == 0  # as many as the tokenizer has


def check_recipe(name: str) -> None:
    """Check that a config has VirTex's backbone, schedule and augmentation."""
    ours, virtex = load(name), load("_base_bicaptioning_R_50_L1_H1024")
    assert ours.MODEL.RESNETS == virtex.MODEL.RESNETS
    assert {**ours.SOLVER, "NO_DECAY": ""} == {**virtex.SOLVER, "NO_DECAY": ""}
    assert {**ours.INPUT.CAPTION}.keys() == {**virtex.INPUT.CAPTION}.keys()
    for key in ("CROP_SIZE", "CROP_SCALE", "FLIP_PROB", "COLOR_JITTER", "COLOR_JITTER_PROB"):
        assert ours.INPUT.CAPTION[key] == virtex.INPUT.CAPTION[key]
