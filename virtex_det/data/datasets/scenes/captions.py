"""Captions of a scene from a small grammar; every statement is true."""

from collections.abc import Sequence
from typing import NamedTuple

from virtex_det.data.datasets.scenes.rng import Rng


class Instance(NamedTuple):
    """One shape of a scene, as captions describe it."""

    shape: str
    color: str
    size: str  # "small", "medium" or "large", by visible area
    area: int  # visible pixels
    box: tuple[int, int, int, int]  # left, top, width, height in pixels, of the visible mask

    @property
    def doubled_center(self) -> tuple[int, int]:
        """Twice the centre of the box, x and y: whole numbers."""
        left, top, width, height = self.box
        return 2 * left + width, 2 * top + height

    @property
    def noun_phrase(self) -> str:
        """Its description, e.g. "a small red star"."""
        return f"a {self.size} {self.color} {self.shape}"


class Phrase(NamedTuple):
    """Some words of a caption: the name of an instance, or a link between two names."""

    text: str
    instance: Instance | None = None


# The phrases of a caption, in order.
Caption = tuple[Phrase, ...]


def wording(caption: Caption) -> str:
    """Return the words of a caption."""
    return " ".join(phrase.text for phrase in caption)


# Centres closer than this percentage of the image along both axes have no relation.
MIN_DISTANCE = 10

# Instances in one caption.
MAX_MENTIONED = 3


def compose_captions(
    rng: Rng, instances: Sequence[Instance], image_size: int, count: int
) -> tuple[Caption, ...]:
    """Write captions that together mention every instance, if their number allows it.

    Args:
        rng: the scene's random stream.
        instances: one or more instances.
        image_size: side of the image in pixels, for distances.
        count: number of captions.

    Returns:
        Lower-case captions; with few instances some are equal.
    """
    parts = _dealt(rng, instances, count)
    captions = [_caption(part, image_size) for part in parts]
    while len(captions) < count:
        # A few attempts to avoid a repeat.
        for _ in range(4):
            part = rng.shuffled(instances)[: rng.between(1, MAX_MENTIONED)]
            caption = _caption(part, image_size)
            if wording(caption) not in map(wording, captions):
                break
        captions.append(caption)
    return tuple(rng.shuffled(captions))


def relation(first: Instance, second: Instance, image_size: int) -> str | None:
    """Return the relation of two instances, along the axis on which they are farther apart.

    Returns:
        The relation, e.g. "left of", or None if the centres nearly coincide.
    """
    (x1, y1), (x2, y2) = first.doubled_center, second.doubled_center
    dx, dy = x1 - x2, y1 - y2
    if max(abs(dx), abs(dy)) * 100 < 2 * MIN_DISTANCE * image_size:
        return None
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def _dealt(rng: Rng, instances: Sequence[Instance], count: int) -> list[list[Instance]]:
    """Deal the instances into at most count parts of one to MAX_MENTIONED."""
    rest = rng.shuffled(instances)
    parts: list[list[Instance]] = []
    while rest and len(parts) < count:
        # With fewer now, the remaining parts could not take the rest.
        needed = -(-len(rest) // (count - len(parts)))
        number = min(max(rng.between(1, MAX_MENTIONED), needed), MAX_MENTIONED)
        parts.append(rest[:number])
        rest = rest[number:]
    return parts


def _caption(mentioned: Sequence[Instance], image_size: int) -> Caption:
    """Relate the largest instance to the others; if it has no relation to one, list them all."""
    first, *others = sorted(mentioned, key=lambda instance: -instance.area)
    sides = [side for other in others if (side := relation(first, other, image_size))]
    listed = len(sides) < len(others)
    links = (
        ["and"] * len(others) if listed else [*sides[:1], *(f"and {side}" for side in sides[1:])]
    )
    phrases = [_named(first)]
    for link, other in zip(links, others, strict=True):
        phrases += [Phrase(link), _named(other)]
    return tuple(phrases)


def _named(instance: Instance) -> Phrase:
    return Phrase(instance.noun_phrase, instance)
