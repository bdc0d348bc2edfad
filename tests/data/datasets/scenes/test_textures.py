import numpy as np
import pytest

from virtex_det.data.datasets.scenes.rng import Rng
from virtex_det.data.datasets.scenes.textures import BACKGROUNDS, draw_background, light_and_noise


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_a_pattern_mixes_two_colours_in_full(kind):
    mix = BACKGROUNDS[kind](Rng(0, (0,)), 96)
    assert mix.shape == (96, 96)
    assert 0 <= mix.min() < 64 and 192 < mix.max() <= 255


@pytest.mark.parametrize("kind", BACKGROUNDS)
@pytest.mark.parametrize("size", [48, 97])
def test_backgrounds_are_drawn_at_any_size(kind, size):
    background = draw_background(Rng(0, (0,)), kind, size)
    assert background.shape == (size, size, 3)
    assert background.min() >= 0 and background.max() <= 255 and background.std() > 3


def test_noise_differs_between_pixels_and_stays_in_range():
    image = light_and_noise(Rng(0, (0,)), np.full((64, 64, 3), 250, np.int32))
    assert image.dtype == np.uint8 and image.std() > 2
