import hashlib
import random

import pytest

from virtex_det.data.datasets import is_in_fraction, manifest_sha256, take_captions, take_fraction
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


CAPTIONED = [{"image_id": k, "captions": [f"{k} {place}" for place in range(5)]} for k in range(200)]


def _captions(dicts):
    return [set(entry["captions"]) for entry in dicts]


def test_fewer_captions_lie_within_more_in_their_order():
    parts = [take_captions(CAPTIONED, count, seed=1) for count in (1, 2, 4)]
    assert [{len(entry["captions"]) for entry in part} for part in parts] == [{1}, {2}, {4}]
    for small, large in zip(parts, parts[1:], strict=False):
        assert all(few < more for few, more in zip(_captions(small), _captions(large), strict=True))
    assert all(entry["captions"] == sorted(entry["captions"]) for part in parts for entry in part)


def test_images_keep_captions_of_different_places():
    kept = [entry["captions"][0].split()[1] for entry in take_captions(CAPTIONED, 1)]
    assert set(kept) == set("01234")


def test_another_seed_keeps_other_captions():
    assert _captions(take_captions(CAPTIONED, 1, seed=0)) != _captions(take_captions(CAPTIONED, 1, seed=1))


@pytest.mark.parametrize("count", [0, 5, 9])
def test_zero_or_more_than_there_are_keeps_all_captions(count):
    assert take_captions(CAPTIONED, count) == CAPTIONED


def test_a_negative_number_of_captions_is_an_error():
    with pytest.raises(UserError, match="CAPTIONS_PER_IMAGE is -1"):
        take_captions(CAPTIONED, -1)


def test_membership_of_a_stream_is_nested_and_near_the_fraction():
    small, large = ({key for key in range(5000) if is_in_fraction(key, part, seed=2)} for part in (0.1, 0.3))
    assert small < large and abs(len(small) - 500) < 80 and abs(len(large) - 1500) < 130
    assert all(is_in_fraction(key, 1.0) for key in range(100))


def test_membership_with_a_fraction_out_of_range_is_an_error():
    with pytest.raises(UserError, match="DATASETS.TRAIN_FRACTION"):
        is_in_fraction("a", 0)


def test_traces_are_taken_with_their_captions():
    entry = {"image_id": 7, "captions": list("abcde"), "traces": [{"of": letter} for letter in "abcde"]}
    (taken,) = take_captions([entry], 2)
    assert [trace["of"] for trace in taken["traces"]] == taken["captions"]
    assert len(taken["captions"]) == 2
