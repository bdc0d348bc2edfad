"""What SOLVER.AMP, the one switch of mixed precision, does on each device."""

import re

import pytest

from virtex_det.config import get_cfg
from virtex_det.config.precision import computes_in_bfloat16, precision_in_words, scales_losses

CASES = {
    (False, "float16", "cpu"): (False, False, "on cpu: float32$"),
    (False, "bfloat16", "cuda"): (False, False, "on cuda: float32$"),
    (True, "float16", "cuda:1"): (
        False,
        True,
        "cuda:1: float16 with scaled losses in training, float32 in evaluation",
    ),
    (True, "float16", "cpu"): (
        False,
        True,
        "on cpu: float32 in evaluation.*SOLVER.AMP.DTYPE bfloat16",
    ),
    (True, "bfloat16", "cpu"): (True, False, "on cpu: bfloat16 in training and evaluation"),
    (True, "bfloat16", "cuda"): (True, False, "on cuda: bfloat16 in training and evaluation"),
}


@pytest.mark.parametrize(("enabled", "dtype", "device"), CASES)
def test_the_switch_does_this_on_that_device_and_says_so(enabled, dtype, device):
    cfg = get_cfg()
    cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE, cfg.MODEL.DEVICE = enabled, dtype, device
    in_bfloat16, scales, words = CASES[enabled, dtype, device]
    assert (computes_in_bfloat16(cfg), scales_losses(cfg)) == (in_bfloat16, scales)
    assert re.search(words, precision_in_words(cfg))
