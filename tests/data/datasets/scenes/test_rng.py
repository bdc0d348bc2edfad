from virtex_det.data.datasets.scenes.rng import Rng


def test_numbers_are_pinned():
    rng = Rng(0, (1, 2))
    assert [rng.below(100) for _ in range(6)] == [5, 56, 58, 86, 65, 94]
    assert rng.octets(4).tolist() == [13, 61, 46, 19]


def test_between_reaches_both_ends():
    rng = Rng(1, (0,))
    assert {rng.between(-1, 2) for _ in range(200)} == {-1, 0, 1, 2}


def test_streams_of_one_seed_differ():
    draws = {tuple(Rng(0, stream).octets(8).tolist()) for stream in [(0, 0), (0, 1), (1, 0), (0,)]}
    assert len(draws) == 4


def test_shuffled_keeps_every_item_and_the_argument():
    items = list(range(50))
    shuffled = Rng(0, (0,)).shuffled(items)
    assert sorted(shuffled) == items != shuffled
    assert items == list(range(50))


def test_octets_have_the_shape_asked_for():
    assert Rng(0, (0,)).octets(3, 5, 7).shape == (3, 5, 7)
