"""Fixed parts of a data set, the same on every rank and machine."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from virtex_det.errors import UserError


def take_fraction(
    dicts: list[dict[str, Any]], fraction: float, seed: int = 0, stratified: bool = False
) -> list[dict[str, Any]]:
    """Take a part of a data set: the first images of ``rank_images``, so that 1 % lies within 10 % of the same seed.

    Args:
        dicts: dataset dicts with "image_id", a number or a string.
        fraction: part to take, above 0 and up to 1; at least one image is taken.
        seed: another seed takes another part.
        stratified: take of each category its share.

    Returns:
        The dicts taken, in their original order.

    Raises:
        UserError: the fraction is not within (0, 1], or there are no categories to stratify by.
    """
    _check_fraction(fraction)
    # 1e-9 keeps 0.07 * 100 = 7.000000000000001 from becoming 8.
    count = max(1, math.ceil(fraction * len(dicts) - 1e-9))
    return [dicts[place] for place in sorted(rank_images(dicts, seed, stratified)[:count])]


def rank_images(dicts: list[dict[str, Any]], seed: int = 0, stratified: bool = False) -> list[int]:
    """Return the places of all images in the order in which parts of a data set take them.

    Without ``stratified`` it is the order of a hash of seed and image id alone.

    With it, each image gets a position between 0 and 1 such that the images of every category are spread evenly, and
    the order is that of the positions. Categories come one after the other, those of the fewest images first, as in
    the iterative stratification of Sechidis et al. (2011). A category of n images cuts the positions into n equal
    slots. Images that a rarer category has placed stay; the others, in the order of their hashes, go one each into
    slots that are still empty, evenly spread over these and at a position within the slot that their hash decides.
    Images without a category are treated as one more category. So the rarest category of an image gets its share of
    every part to within one image, and commoner ones are nearer to theirs than without.

    All is decided by hashes and whole numbers, so neither the order of the file, nor a random generator, nor a machine
    can change it.

    Raises:
        UserError: there are no categories to stratify by.
    """
    hashes = [_rank(seed, entry["image_id"]) for entry in dicts]
    positions = _spread(_by_category(dicts), hashes) if stratified else [0] * len(dicts)
    return sorted(range(len(dicts)), key=lambda place: (positions[place], hashes[place]))


def is_in_fraction(image_id: int | str, fraction: float, seed: int = 0) -> bool:
    """Return whether an image is in a part of a data set that is never listed whole; ``take_fraction`` for streams.

    The part is as large as chance makes it: each image is in it with the probability ``fraction``. Of one seed, smaller
    parts lie within larger ones.

    Raises:
        UserError: the fraction is not within (0, 1].
    """
    _check_fraction(fraction)
    return _number(_rank(seed, image_id), 0) < fraction * 2**64


def take_captions(dicts: list[dict[str, Any]], per_image: int, seed: int = 0) -> list[dict[str, Any]]:
    """Take some captions of each image, chosen by image id and the caption's place; one lies within two of one seed.

    Args:
        dicts: dataset dicts with "captions", and "traces" where they are narratives.
        per_image: how many; 0 for all, and all where an image has fewer.
        seed: another seed takes others.

    Returns:
        Dicts with the captions taken, in their original order.

    Raises:
        UserError: the number is negative.
    """
    if per_image < 0:
        raise UserError(f"DATASETS.CAPTIONS_PER_IMAGE is {per_image}; it must be 0, for all, or above.")
    return [_with_captions(entry, per_image, seed) for entry in dicts] if per_image else dicts


def instances_of(entry: dict[str, Any]) -> list[int] | None:
    """Return the category of each of an image's instances: its label, or its objects other than crowds.

    Returns:
        None where the image has neither label nor annotations.
    """
    if "label" in entry:
        return [entry["label"]]
    if "annotations" not in entry:
        return None
    return [each["category_id"] for each in entry["annotations"] if not each.get("iscrowd", 0)]


def manifest_sha256(*sets: Iterable[int | str]) -> str:
    """Return the sha256 of the sorted image ids of one or several data sets: equal for equal choices of images.

    Neither the order of the images nor that of the data sets matters, nor do their names.
    """
    texts = ("\n".join(sorted(map(str, ids))) for ids in sets)
    return hashlib.sha256("\n\n".join(sorted(texts)).encode()).hexdigest()


def _with_captions(entry: dict[str, Any], count: int, seed: int) -> dict[str, Any]:
    places = range(len(entry["captions"]))
    taken = sorted(sorted(places, key=lambda place: _rank(seed, f"{entry['image_id']}/{place}"))[:count])
    parallel = [key for key in ("captions", "traces") if key in entry]
    return {**entry, **{key: [entry[key][place] for place in taken] for key in parallel}}


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise UserError(f"DATASETS.TRAIN_FRACTION is {fraction}; it must be above 0 and at most 1 (0.1 takes 10 %)")


def _rank(seed: int, image_id: int | str) -> bytes:
    return hashlib.sha256(f"{seed}/{image_id}".encode()).digest()


def _by_category(dicts: list[dict[str, Any]]) -> dict[int, list[int]]:
    """Return the places of the images of each category, and under -1 of those without."""
    found: dict[int, list[int]] = defaultdict(list)
    for place, entry in enumerate(dicts):
        instances = instances_of(entry)
        if instances is None:
            raise UserError(
                f"DATASETS.SUBSET_STRATIFIED is True, and the data set has no categories to stratify by: image "
                f"{entry['image_id']} has neither boxes nor a label (captions are no categories).\n"
                "Set DATASETS.SUBSET_STRATIFIED False."
            )
        for category in set(instances) or {-1}:
            found[category].append(place)
    return found


def _spread(by_category: dict[int, list[int]], hashes: list[bytes]) -> list[int]:
    """Return the position of each image, from 0 to 2**64, spreading the images of each category evenly."""
    positions: dict[int, int] = {}
    for _, images in sorted(by_category.items(), key=lambda item: (len(item[1]), item[0])):
        count = len(images)
        filled = {positions[image] * count >> 64 for image in images if image in positions}
        waiting = sorted((image for image in images if image not in positions), key=hashes.__getitem__)
        empty = [slot for slot in range(count) if slot not in filled]
        for number, image in enumerate(waiting):
            # Other bytes than those that decided the order: else first images would always come early in their slots.
            start = _number(hashes[waiting[0]], 2) % len(empty)
            slot = empty[(number * len(empty) + start) // len(waiting)]
            positions[image] = ((slot << 64) + _number(hashes[image], 1)) // count
    return [positions[image] for image in range(len(hashes))]


def _number(digest: bytes, place: int) -> int:
    """Return one of the four numbers of 8 bytes that a digest holds."""
    return int.from_bytes(digest[8 * place : 8 * place + 8], "big")
