import random

import numpy as np
import torch

from virtex_det.data.seeding import seeded


def draw():
    return torch.rand(4).tolist(), np.random.rand(4).tolist(), [random.random() for _ in range(4)]


def draw_seeded(*key):
    with seeded(*key):
        return draw()


def test_a_key_fixes_all_three_generators():
    assert draw_seeded(3, 7) == draw_seeded(3, 7)


def test_keys_that_read_alike_without_a_gap_differ():
    draws = [str(draw_seeded(*key)) for key in [(1, 23), (12, 3), (123,), (1, 2, 3), (1, 24)]]
    assert len(set(draws)) == len(draws)


def test_the_three_generators_draw_different_sequences():
    drawn = [np.round(values, 5).tolist() for values in draw_seeded(0, 0)]
    assert drawn[0] != drawn[1] != drawn[2] != drawn[0]


def test_the_draws_are_pinned():
    with seeded(0, 1):
        drawn = (
            int(torch.randint(10**6, ())),
            int(np.random.randint(10**6)),
            random.randrange(10**6),
        )
    assert drawn == (599648, 324271, 230887)


def test_states_are_put_back_even_after_an_error():
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)
    np.random.randn()  # leaves a second normal number behind
    expected = [torch.rand(1).item(), np.random.randn(), random.random()]
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)
    np.random.randn()
    try:
        with seeded(5):
            np.random.randn()
            raise ValueError
    except ValueError:
        pass
    assert [torch.rand(1).item(), np.random.randn(), random.random()] == expected
