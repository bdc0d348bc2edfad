import hashlib
import random
from collections import Counter

import pytest

from virtex_det.data.datasets import (
    instances_of,
    is_in_fraction,
    load_dataset,
    manifest_sha256,
    register_builtin_datasets,
    take_captions,
    take_fraction,
)
from virtex_det.errors import UserError

DICTS = [{"image_id": image_id, "file_name": f"{image_id}.jpg"} for image_id in range(1000, 0, -1)]


def _ids(dicts):
    return [entry["image_id"] for entry in dicts]


@pytest.mark.parametrize(
    ("fraction", "count"),
    [(1.0, 1000), (0.1, 100), (0.01, 10), (0.0101, 11), (1e-6, 1), (1e-15, 1), (0.07, 70)],
)
def test_a_fraction_is_rounded_up(fraction, count):
    assert len(take_fraction(DICTS, fraction)) == count


def test_smaller_fractions_lie_within_larger_ones():
    parts = [
        set(_ids(take_fraction(DICTS, fraction, seed=3)))
        for fraction in (0.01, 0.05, 0.1, 0.5, 1.0)
    ]
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
    assert manifest_sha256([10, 2, 1]) == manifest_sha256(["10", "1", "2"]) == expected


def test_manifests_of_different_parts_differ():
    parts = [take_fraction(DICTS, 0.1, seed=seed) for seed in range(3)]
    assert len({manifest_sha256(_ids(part)) for part in parts}) == 3


def test_a_manifest_of_two_data_sets_does_not_depend_on_their_order_but_on_what_each_holds():
    assert manifest_sha256([1, 2], [3]) == manifest_sha256([3], [2, 1])
    assert (
        len(
            {manifest_sha256([1, 2], [3]), manifest_sha256([1], [2, 3]), manifest_sha256([1, 2, 3])}
        )
        == 3
    )


def _detection_set(images=2000, categories=40):
    """Images of a few categories each, the last categories rare, some without any; the crowds
    tell nothing.
    """
    rng = random.Random(0)
    weights = [1 / (1 + category) ** 1.5 for category in range(categories)]
    dicts = []
    for image_id in range(images):
        found = rng.choices(range(categories), weights, k=rng.choice((0, 1, 2, 3, 6)))
        annotations = [{"category_id": category} for category in found] + [
            {"category_id": 0, "iscrowd": 1}
        ]
        dicts.append({"image_id": image_id, "annotations": annotations})
    return dicts


DETECTION = _detection_set()
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def _images_by_category(dicts):
    return Counter(category for entry in dicts for category in set(instances_of(entry)) or {-1})


def _distances(fraction, seed, stratified):
    """How far each category is from its share, in images."""
    there, taken = (
        _images_by_category(DETECTION),
        take_fraction(DETECTION, fraction, seed, stratified),
    )
    found = _images_by_category(taken)
    return {category: abs(found[category] - fraction * count) for category, count in there.items()}


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_a_stratified_part_has_of_each_category_about_its_share(fraction):
    for seed in range(3):
        distances = _distances(fraction, seed, stratified=True)
        rarest = min(
            distances, key=lambda category: (_images_by_category(DETECTION)[category], category)
        )
        assert distances[rarest] < 1
        assert max(distances.values()) < 1 + 0.08 * fraction * len(DETECTION)


def test_a_stratified_part_is_nearer_to_the_shares_than_another():
    def total(stratified):
        return sum(
            sum(_distances(fraction, seed, stratified).values())
            for fraction in FRACTIONS
            for seed in range(3)
        )

    assert total(stratified=True) < 0.6 * total(stratified=False)


def test_of_one_label_per_image_every_stratified_part_has_the_share_to_within_an_image():
    labels = [
        {"image_id": f"{label}/{k}", "label": label}
        for label in range(7)
        for k in range(10 * label + 3)
    ]
    for fraction in FRACTIONS:
        found = Counter(
            entry["label"] for entry in take_fraction(labels, fraction, 1, stratified=True)
        )
        # Of all categories together the number of images is given, which moves the cut by an image
        # or two.
        assert all(abs(found[label] - fraction * (10 * label + 3)) < 2 for label in range(7))


@pytest.mark.parametrize("stratified", [False, True])
def test_parts_of_a_detection_set_lie_within_another(stratified):
    parts = [set(_ids(take_fraction(DETECTION, fraction, 5, stratified))) for fraction in FRACTIONS]
    assert (
        all(small < large for small, large in zip(parts, parts[1:], strict=False))
        and len(parts[-1]) == 2000
    )


def test_a_stratified_choice_depends_on_neither_the_order_of_the_file_nor_that_of_the_objects():
    shuffled = [
        {**entry, "annotations": entry["annotations"][::-1]}
        for entry in random.Random(1).sample(DETECTION, len(DETECTION))
    ]
    assert set(_ids(take_fraction(shuffled, 0.1, 0, True))) == set(
        _ids(take_fraction(DETECTION, 0.1, 0, True))
    )


def test_the_choices_never_change():
    """Results in the world depend on them: a change of these hashes is a change of everyone's
    subsets.
    """
    plain, stratified = (
        _ids(take_fraction(DETECTION, 0.1, 0, stratified)) for stratified in (False, True)
    )
    assert manifest_sha256(plain) == (
        "aa2e1a57365ad126a9fb721c83c1afe213b132f895c6f952c5daf71c851b1a97"
    )
    assert manifest_sha256(stratified) == (
        "a16b29e020cee1cdc3101e154d48b0c98a91f7f128bc453643450c6808326fd3"
    )


def test_another_seed_takes_another_stratified_part():
    assert _ids(take_fraction(DETECTION, 0.1, 0, True)) != _ids(
        take_fraction(DETECTION, 0.1, 1, True)
    )


def test_captions_cannot_be_stratified():
    with pytest.raises(UserError, match=r"SUBSET_STRATIFIED.*no categories(?s:.*)captions"):
        take_fraction([{"image_id": 7, "captions": ["a dog"]}], 0.5, 0, stratified=True)


@pytest.fixture
def builtin(samples):
    """The real samples and the scenes under their names."""
    from virtex_det.data.datasets import datasets_root

    register_builtin_datasets(samples)
    yield
    register_builtin_datasets(datasets_root())


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("name", ["coco_mini_train", "lvis_100_val", "voc_mini_trainval"])
def test_parts_of_real_sets_lie_within_another(builtin, name, stratified):
    _check_nested(load_dataset(name), stratified)


@pytest.mark.parametrize("name", ["coco_mini_train_captions"])
def test_parts_of_real_captions_lie_within_another(builtin, name):
    _check_nested(load_dataset(name), stratified=False)


@pytest.mark.parametrize(
    ("name", "stratified"),
    [("scenes_train", False), ("scenes_train", True), ("scenes_unlabelled_captions", False)],
)
def test_parts_of_scenes_lie_within_another(scenes, name, stratified):
    _check_nested(load_dataset(name), stratified)


def _check_nested(dicts, stratified):
    for seed in range(2):
        parts = [
            set(_ids(take_fraction(dicts, fraction, seed, stratified))) for fraction in FRACTIONS
        ]
        assert all(small <= large for small, large in zip(parts, parts[1:], strict=False))
        assert len(parts[-1]) == len(dicts) and len(parts[0]) < len(parts[5]) < len(parts[6])


CAPTIONED = [
    {"image_id": k, "captions": [f"{k} {place}" for place in range(5)]} for k in range(200)
]


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
    assert _captions(take_captions(CAPTIONED, 1, seed=0)) != _captions(
        take_captions(CAPTIONED, 1, seed=1)
    )


@pytest.mark.parametrize("count", [0, 5, 9])
def test_zero_or_more_than_there_are_keeps_all_captions(count):
    assert take_captions(CAPTIONED, count) == CAPTIONED


def test_a_negative_number_of_captions_is_an_error():
    with pytest.raises(UserError, match="CAPTIONS_PER_IMAGE is -1"):
        take_captions(CAPTIONED, -1)


def test_membership_of_a_stream_is_nested_and_near_the_fraction():
    small, large = (
        {key for key in range(5000) if is_in_fraction(key, part, seed=2)} for part in (0.1, 0.3)
    )
    assert small < large and abs(len(small) - 500) < 80 and abs(len(large) - 1500) < 130
    assert all(is_in_fraction(key, 1.0) for key in range(100))


def test_membership_with_a_fraction_out_of_range_is_an_error():
    with pytest.raises(UserError, match="DATASETS.TRAIN_FRACTION"):
        is_in_fraction("a", 0)


def test_traces_are_taken_with_their_captions():
    entry = {
        "image_id": 7,
        "captions": list("abcde"),
        "traces": [{"of": letter} for letter in "abcde"],
    }
    (taken,) = take_captions([entry], 2)
    assert [trace["of"] for trace in taken["traces"]] == taken["captions"]
    assert len(taken["captions"]) == 2
