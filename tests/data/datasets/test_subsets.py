import hashlib
import random

import pytest

from virtex_det.data.datasets import manifest_sha256, take_fraction
from virtex_det.errors import UserError

DICTS = [{"image_id": image_id, "file_name": f"{image_id}.jpg"} for image_id in range(1000, 0, -1)]


def _ids(dicts):
    return [entry["image_id"] for entry in dicts]


@pytest.mark.parametrize(
    ("fraction", "count"), [(1.0, 1000), (0.1, 100), (0.01, 10), (0.0101, 11), (1e-6, 1), (0.07, 70)]
)
def test_a_fraction_is_rounded_up(fraction, count):
    assert len(take_fraction(DICTS, fraction)) == count


def test_smaller_fractions_lie_within_larger_ones():
    parts = [set(_ids(take_fraction(DICTS, fraction, seed=3))) for fraction in (0.01, 0.05, 0.1, 0.5, 1.0)]
    assert all(small < large for small, large in zip(parts, parts[1:], strict=False))


def test_the_choice_is_pinned():
    assert sorted(_ids(take_fraction(DICTS, 0.005))) == [16, 325, 486, 771, 969]


def test_the_choice_does_not_depend_on_the_order_of_the_file():
    shuffled = random.Random(0).sample(DICTS, len(DICTS))
    assert set(_ids(take_fraction(shuffled, 0.1))) == set(_ids(take_fraction(DICTS, 0.1)))


def test_the_order_of_the_file_is_kept():
    assert _ids(take_fraction(DICTS, 0.3)) == sorted(_ids(take_fraction(DICTS, 0.3)), reverse=True)


def test_another_seed_takes_another_part():
    assert _ids(take_fraction(DICTS, 0.1, seed=0)) != _ids(take_fraction(DICTS, 0.1, seed=1))


def test_image_ids_may_be_strings():
    dicts = [{"image_id": f"2007_{k:06d}"} for k in range(20)]
    assert len(take_fraction(dicts, 0.5)) == 10


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_an_error(fraction):
    with pytest.raises(UserError, match="DATASETS.TRAIN_FRACTION"):
        take_fraction(DICTS, fraction)


def test_a_manifest_is_the_hash_of_the_sorted_ids():
    expected = hashlib.sha256(b"1\n10\n2").hexdigest()
    assert manifest_sha256([{"image_id": 10}, {"image_id": 2}, {"image_id": 1}]) == expected


def test_manifests_of_different_parts_differ():
    parts = [take_fraction(DICTS, 0.1, seed=seed) for seed in range(3)]
    assert len({manifest_sha256(part) for part in parts}) == 3
