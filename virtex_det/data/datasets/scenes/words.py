"""Captions of a scene from a small grammar, in which every statement is true."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from virtex_det.data.datasets.scenes.dice import Dice


class Instance(NamedTuple):
    """What can be said of one shape of a scene."""

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


SIZE_WORDS = {"small": ("small", "little"), "medium": ("medium",), "large": ("large", "big")}
NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}

# Relation of a to b -> "a ... b", and "b with a ...".
RELATIONS = {
    "left": (("left of", "to the left of"), ("to its left", "on its left")),
    "right": (("right of", "to the right of"), ("to its right", "on its right")),
    "above": (("above",), ("above it",)),
    "below": (("below", "under"), ("below it", "under it")),
}

# Centres closer than this percentage of the image along both axes have no relation.
MIN_DISTANCE = 10

# Instances in one caption.
MAX_MENTIONED = 3

_OPENINGS = ("", "", "there is ", "a picture of ", "we see ")
_COUNT_OPENINGS = ("", "", "there are ", "a picture of ", "we see ")


def write_captions(
    dice: Dice, instances: Sequence[Instance], background: str, image_size: int, count: int
) -> tuple[str, ...]:
    """Write captions that together mention every instance, as far as their number allows.

    Args:
        dice: the scene's stream.
        instances: what is to be seen, one to four.
        background: the word for the background, e.g. "striped".
        image_size: side of the image in pixels, the measure of distances.
        count: captions to write.

    Returns:
        Captions of lower-case words.
    """
    writer = _Writer(dice, instances, background, image_size)
    captions = [writer.about(part) for part in _dealt(dice, instances, count)]
    while len(captions) < count:
        captions.append(writer.another(captions))
    return tuple(dice.shuffled(captions))


def relation(first: Instance, second: Instance, image_size: int) -> str | None:
    """Return where the first instance lies from the second, by the axis along which their centres are farther apart.

    Returns:
        A key of RELATIONS, or None where the centres nearly coincide.
    """
    (x1, y1), (x2, y2) = first.doubled_center, second.doubled_center
    dx, dy = x1 - x2, y1 - y2
    if max(abs(dx), abs(dy)) * 100 < 2 * MIN_DISTANCE * image_size:
        return None
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


def _dealt(dice: Dice, instances: Sequence[Instance], count: int) -> list[list[Instance]]:
    """Deal the instances into at most count parts of one to MAX_MENTIONED."""
    rest = dice.shuffled(instances)
    parts: list[list[Instance]] = []
    while rest and len(parts) < count:
        # At least this many now, or the parts left could not take in the rest.
        needed = -(-len(rest) // (count - len(parts)))
        number = min(max(dice.between(1, MAX_MENTIONED), needed), MAX_MENTIONED)
        parts.append(rest[:number])
        rest = rest[number:]
    return parts


class _Writer:
    """Puts one scene into words."""

    def __init__(self, dice: Dice, instances: Sequence[Instance], background: str, image_size: int) -> None:
        self._dice = dice
        self._instances = instances
        self._background = background
        self._image_size = image_size
        self._groups = _alike(instances)

    def another(self, written: Sequence[str]) -> str:
        """Write a caption about anything; a few tries not to repeat one."""
        for _ in range(4):
            if self._groups and self._dice.below(2):
                caption = self._counting(*self._dice.pick(self._groups))
            else:
                caption = self.about(self._dice.shuffled(self._instances)[: self._dice.between(2, MAX_MENTIONED)])
            if caption not in written:
                break
        return caption

    def about(self, mentioned: Sequence[Instance]) -> str:
        """Say how the first instance lies from each of the others; where it lies on no side of one, list them all."""
        dice = self._dice
        names = [self._noun_phrase(instance) for instance in mentioned]
        sides = [relation(mentioned[0], other, self._image_size) for other in mentioned[1:]]
        known = [side for side in sides if side]
        if len(known) < len(sides):
            sentence = " and ".join(names)
        elif len(known) == 1 and dice.below(3) == 0:
            sentence = f"{names[1]} with {names[0]} {dice.pick(RELATIONS[known[0]][1])}"
        else:
            places = [f"{dice.pick(RELATIONS[side][0])} {name}" for side, name in zip(known, names[1:], strict=True)]
            sentence = " ".join([names[0], " and ".join(places)]).strip()
        return dice.pick(_OPENINGS) + sentence + self._setting()

    def _counting(self, noun: str, members: Sequence[Instance]) -> str:
        """Count instances that are alike, and at times name one that is not."""
        others = [instance for instance in self._instances if instance not in members]
        sentence = f"{NUMBER_WORDS[len(members)]} {noun}"
        if others and self._dice.below(2):
            sentence += f" and {self._noun_phrase(self._dice.pick(others))}"
        return self._dice.pick(_COUNT_OPENINGS) + sentence + self._setting()

    def _noun_phrase(self, instance: Instance) -> str:
        return f"a {self._dice.pick(SIZE_WORDS[instance.size])} {instance.color} {instance.shape}"

    def _setting(self) -> str:
        return f" on a {self._background} background" if self._dice.below(6) == 0 else ""


def _alike(instances: Sequence[Instance]) -> list[tuple[str, list[Instance]]]:
    """Return what can be counted: a plural noun, and the two or more instances that it is true of."""
    groups: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        plural = instance.shape + ("es" if instance.shape.endswith("s") else "s")
        for noun in (f"{instance.color} {plural}", plural, f"{instance.color} shapes"):
            groups[noun].append(instance)
    return [(noun, members) for noun, members in groups.items() if len(members) > 1]
