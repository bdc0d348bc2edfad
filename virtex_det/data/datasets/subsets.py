"""Deterministic parts of a dataset, the same on every rank and machine."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from virtex_det.errors import UserError


def take_fraction(
    dicts: list[dict[str, Any]], fraction: float, seed: int = 0, stratified: bool = False
) -> list[dict[str, Any]]:
    """Take a fraction of a dataset, the first images of ``rank_images``.

    With one seed, smaller fractions are subsets of larger ones.

    Args:
        dicts: dataset dicts with "image_id", a number or a string.
        fraction: fraction to take, in (0, 1]; at least one image is taken.
        seed: another seed gives another part.
        stratified: take the same fraction of every category.

    Returns:
        The chosen dicts, in their original order.

    Raises:
        UserError: the fraction is not in (0, 1], or there are no categories to stratify by.

    Example:
        >>> dicts = [{"image_id": number} for number in range(1000)]
        >>> tenth = take_fraction(dicts, 0.1)
        >>> len(tenth), all(entry in tenth for entry in take_fraction(dicts, 0.01))
        (100, True)
    """
    _check_fraction(fraction)
    # 1e-9 keeps 0.07 * 100 = 7.000000000000001 from becoming 8.
    count = max(1, math.ceil(fraction * len(dicts) - 1e-9))
    return [dicts[place] for place in sorted(rank_images(dicts, seed, stratified)[:count])]


def rank_images(dicts: list[dict[str, Any]], seed: int = 0, stratified: bool = False) -> list[int]:
    """Return the indices of all images in the order in which parts of a dataset take them.

    Without ``stratified`` it is the order of a hash of seed and image id.

    With ``stratified``, each image gets a position between 0 and 1 such that the images of every
    category are spread evenly; the order is that of the positions. Categories are placed one by
    one, those with the fewest images first, as in the iterative stratification of Sechidis et al.
    (2011). A category of n images divides the positions into n equal slots. Images that a rarer
    category has placed stay. The others, in the order of their hashes, fill empty slots, spread
    evenly over these, one per slot, at a position in the slot that their hash determines. Images
    without a category are treated as one more category. So an image's rarest category gets its
    share of every part to within one image, and other categories get closer to theirs than without
    stratification.

    Only hashes and integers are used: the result depends neither on the order of the file, nor on a
    random generator, nor on the machine.

    Raises:
        UserError: there are no categories to stratify by.
    """
    hashes = [_rank(seed, entry["image_id"]) for entry in dicts]
    positions = _spread(_by_category(dicts), hashes) if stratified else [0] * len(dicts)
    return sorted(range(len(dicts)), key=lambda place: (positions[place], hashes[place]))


def is_in_fraction(image_id: int | str, fraction: float, seed: int = 0) -> bool:
    """Return whether an image is in a fraction of a dataset; the ``take_fraction`` of streams.

    Each image is in the part with probability ``fraction``, so its size is random. With one seed,
    smaller parts are subsets of larger ones.

    Raises:
        UserError: the fraction is not in (0, 1].
    """
    _check_fraction(fraction)
    return _number(_rank(seed, image_id), 0) < fraction * 2**64


def take_captions(
    dicts: list[dict[str, Any]], per_image: int, seed: int = 0
) -> list[dict[str, Any]]:
    """Take some captions of each image, chosen by image id and caption index.

    With one seed, smaller numbers take subsets of larger ones.

    Args:
        dicts: dataset dicts with "captions", and "traces" for narratives.
        per_image: captions per image; 0 for all. An image with fewer keeps all.
        seed: another seed takes other captions.

    Returns:
        Dicts with the chosen captions, in their original order.

    Raises:
        UserError: the number is negative.
    """
    if per_image < 0:
        raise UserError(
            f"DATASETS.CAPTIONS_PER_IMAGE is {per_image}; expected a positive number, or 0 for "
            "all captions."
        )
    return [_with_captions(entry, per_image, seed) for entry in dicts] if per_image else dicts


def instances_of(entry: dict[str, Any]) -> list[int] | None:
    """Return the categories of an image's instances: its label, or its objects without crowds.

    Returns:
        None if the image has neither label nor annotations.
    """
    if "label" in entry:
        return [entry["label"]]
    if "annotations" not in entry:
        return None
    return [each["category_id"] for each in entry["annotations"] if not each.get("iscrowd", 0)]


def manifest_sha256(*sets: Iterable[int | str]) -> str:
    """Return the sha256 of the sorted image ids of one or several datasets.

    It does not depend on the order of images or datasets, nor on the datasets' names.
    """
    texts = ("\n".join(sorted(map(str, ids))) for ids in sets)
    return hashlib.sha256("\n\n".join(sorted(texts)).encode()).hexdigest()


def _with_captions(entry: dict[str, Any], count: int, seed: int) -> dict[str, Any]:
    places = range(len(entry["captions"]))
    taken = sorted(
        sorted(places, key=lambda place: _rank(seed, f"{entry['image_id']}/{place}"))[:count]
    )
    parallel = [key for key in ("captions", "traces") if key in entry]
    return {**entry, **{key: [entry[key][place] for place in taken] for key in parallel}}


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise UserError(
            f"DATASETS.TRAIN_FRACTION is {fraction}; it must be above 0 and at most 1 (0.1 takes "
            "10 %)"
        )


def _rank(seed: int, image_id: int | str) -> bytes:
    return hashlib.sha256(f"{seed}/{image_id}".encode()).digest()


def _by_category(dicts: list[dict[str, Any]]) -> dict[int, list[int]]:
    """Return the indices of the images of each category; -1 is for images without one."""
    found: dict[int, list[int]] = defaultdict(list)
    for place, entry in enumerate(dicts):
        instances = instances_of(entry)
        if instances is None:
            raise UserError(
                "DATASETS.SUBSET_STRATIFIED is True, but the data set has no categories to "
                f"stratify by: image {entry['image_id']} has neither boxes nor a label (captions "
                "are not categories).\n"
                "Set DATASETS.SUBSET_STRATIFIED False."
            )
        for category in set(instances) or {-1}:
            found[category].append(place)
    return found


def _spread(by_category: dict[int, list[int]], hashes: list[bytes]) -> list[int]:
    """Return positions in 0..2**64 that spread the images of each category evenly."""
    positions: dict[int, int] = {}
    for _, images in sorted(by_category.items(), key=lambda item: (len(item[1]), item[0])):
        count = len(images)
        filled = {positions[image] * count >> 64 for image in images if image in positions}
        waiting = sorted(
            (image for image in images if image not in positions), key=hashes.__getitem__
        )
        empty = [slot for slot in range(count) if slot not in filled]
        for number, image in enumerate(waiting):
            # Other bytes than those of the order: otherwise first images would come early in their
            # slots.
            start = _number(hashes[waiting[0]], 2) % len(empty)
            slot = empty[(number * len(empty) + start) // len(waiting)]
            positions[image] = ((slot << 64) + _number(hashes[image], 1)) // count
    return [positions[image] for image in range(len(hashes))]


def _number(digest: bytes, place: int) -> int:
    """Return one of the four 8-byte numbers in a digest."""
    return int.from_bytes(digest[8 * place : 8 * place + 8], "big")
