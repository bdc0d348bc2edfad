import numpy as np
import pytest

from tests.evaluation.detection.references import encode
from virtex_det.errors import UserError
from virtex_det.run_lengths import check_run_lengths


def masks(count=60):
    """Random masks of many sizes and densities, empty and full ones among them."""
    random = np.random.default_rng(0)
    densities = [0, 1, *random.random(count)]
    return [encode(random.random(random.integers(1, 90, 2)) < density) for density in densities]


def name(place):
    return f"mask {place}"


def test_what_pycocotools_encodes_is_whole():
    check_run_lengths(masks(), name)
    check_run_lengths([rle | {"counts": rle["counts"].encode()} for rle in masks()], name)
    check_run_lengths([encode(np.eye(3000, 3000))], name)
    check_run_lengths([], name)


def test_every_cut_of_a_mask_is_found_and_named():
    first, broken, last = masks()[5:8]
    for length in range(len(broken["counts"])):
        with pytest.raises(UserError, match="mask 1 has"):
            check_run_lengths([first, broken | {"counts": broken["counts"][:length]}, last], name)


def test_every_exchange_of_a_character_that_changes_the_sum_is_found():
    rle = encode(np.tri(9, 9))
    check_run_lengths([rle], name)
    for place, character in enumerate(rle["counts"]):
        other = chr(ord(character) ^ 1)
        changed = rle["counts"][:place] + other + rle["counts"][place + 1 :]
        with pytest.raises(UserError, match="mask 0 has"):
            check_run_lengths([rle | {"counts": changed}], name)


def test_a_mask_is_named_by_its_place_among_hundreds():
    rles = masks(700)
    rles[523] = rles[523] | {"counts": rles[523]["counts"][:-1]}
    with pytest.raises(UserError, match="mask 523 has"):
        check_run_lengths(rles, name)
