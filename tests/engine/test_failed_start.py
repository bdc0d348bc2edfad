"""A start that fails leaves nothing that keeps the corrected command from starting."""

from pathlib import Path

import pytest

from virtex_det.engine import Trainer, argument_parser, setup
from virtex_det.engine.run_folder import RUN_MARKERS
from virtex_det.errors import UserError


def start(cfg, folder: Path) -> None:
    config = folder.with_suffix(".yaml")
    config.write_text(cfg.dump())
    trainer = Trainer(setup(argument_parser().parse_args(["--config-file", str(config)])))
    trainer.resume_or_load(resume=False)


@pytest.mark.parametrize(
    "wrong",
    [
        ("MODEL.WEIGHTS", "missing.pth"),
        ("MODEL.RESNETS.DEPTH", 19),
        ("MODEL.RESNETS.NORM", "NoNorm"),
        ("DATASETS.TRAIN", "('scenes_unlabelled_captions',)"),
        ("SOLVER.OPTIMIZER", "Adamm"),
    ],
)
def test_the_corrected_command_starts(detector_cfg, wrong):
    folder = Path(detector_cfg().OUTPUT_DIR)
    with pytest.raises(UserError):
        start(detector_cfg(*wrong), folder)
    assert not any(any(folder.glob(marker)) for marker in RUN_MARKERS)
    start(detector_cfg(), folder)
