"""Captions of a scene from a small grammar; every statement is true.

The grammar has the statistics of COCO's captions (docs/scenes.md compares them in numbers): most
words for visible things are nouns, few are adjectives or verbs; a caption has about ten words; and
the captions of one picture agree on some things and differ in others.
"""

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


class Phrase(NamedTuple):
    """Some words of a caption: those that name an instance, or others."""

    text: str
    instance: Instance | None = None


# The phrases of a caption, in order.
Caption = tuple[Phrase, ...]


def wording(caption: Caption) -> str:
    """Return the words of a caption."""
    return " ".join(phrase.text for phrase in caption)


# What captions may call the shapes: by the names of the detector's classes, or by other words.
VOCABULARIES = ("names", "synonyms")

# Two words for each class, each of one class; captions with them have no name of a class.
SYNONYMS: dict[str, tuple[str, str]] = {
    "circle": ("disc", "coin"),
    "square": ("box", "tile"),
    "triangle": ("pyramid", "tent"),
    "star": ("snowflake", "badge"),
    "cross": ("windmill", "propeller"),
    "ring": ("hoop", "donut"),
    "heart": ("valentine", "pendant"),
    "crescent": ("moon", "banana"),
}
# Every noun that names a shape, in either vocabulary.
SHAPE_WORDS: tuple[str, ...] = (*SYNONYMS, *(word for pair in SYNONYMS.values() for word in pair))

# Centres closer than this percentage of the image along both axes have no relation.
MIN_DISTANCE = 10
# Centres closer than this along both axes may also be next to each other.
NEXT_TO = 45
# Centres within this percentage of an edge are at that edge.
EDGE = 30

# Instances in one caption.
MAX_MENTIONED = 3
# Attempts to write a caption that the scene does not have yet.
_ATTEMPTS = 5

# Frequency of each part, in percent of the places where it could be.
_COLOR = 12
_SIZE = 8
_VERB = 70
_OPENING = 15
_COUNTED = 50
_NEAR = 40
_SETTING = 75
_PLACE = 25

# Nouns of real captions name things, seldom parts of the picture; hence "left of", in which "left"
# is no noun, and backgrounds that are things.
_SIDES: dict[str, tuple[str, ...]] = {
    "left of": ("left of",),
    "right of": ("right of",),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
}
_NEXT = ("next to", "near", "beside")
_OPENINGS = ("a picture of", "there is")
_COUNTS = {
    2: ("two shapes with", "two shapes with", "a pair of shapes with"),
    3: ("three shapes with", "three shapes with", "a group of shapes with"),
}
# Things hang high and stand low, so that a verb can be seen, as in photographs.
_VERBS = {
    "top": ("hanging", "floating"),
    "middle": ("placed", "resting"),
    "bottom": ("sitting", "standing", "lying"),
}
# What stands before a verb, without an opening and with one.
_BEFORE_VERB = (("", "is ", "that is "), ("", "that is "))
_SETTINGS = {
    "smooth": ("on a sheet of paper", "on a smooth wall", "against a wall"),
    "striped": ("on a wall with stripes", "on a striped wall", "with lines behind"),
    "checkered": ("on a wall with checks", "on a checkered wall", "on a checkerboard"),
    "dotted": ("on a wall with dots", "on a dotted wall", "with spots behind"),
    "cloudy": ("against a sky with clouds", "against a cloudy sky", "with smoke behind"),
}
# Instances in a caption, each number as often as it stands here.
_MENTIONED = (1, 2, 2, 3)


class CaptionWriter:
    """Writes the captions of one scene.

    Args:
        rng: the scene's random stream.
        instances: one or more instances.
        background: the kind of background, a key of ``BACKGROUNDS``.
        image_size: side of the image in pixels, for distances.
        vocabulary: what shapes are called, one of ``VOCABULARIES``. It changes no other word.
    """

    def __init__(
        self,
        rng: Rng,
        instances: Sequence[Instance],
        background: str,
        image_size: int,
        vocabulary: str = "names",
    ) -> None:
        self._rng = rng
        self._instances = instances
        self._background = background
        self._image_size = image_size
        self._vocabulary = vocabulary

    def compose(self, count: int) -> tuple[Caption, ...]:
        """Write captions that together mention every instance, if their number allows it.

        Args:
            count: number of captions.

        Returns:
            Lower-case captions; a few may be equal.
        """
        parts = self._dealt(count)
        while len(parts) < count:
            number = self._rng.pick(_MENTIONED)
            parts.append(self._rng.shuffled(self._instances)[:number])
        captions: list[Caption] = []
        for part in parts:
            captions.append(self._new_caption(part, captions))
        captions = self._rng.shuffled(captions)
        if self._vocabulary == "synonyms":
            captions = [self._with_synonyms(caption) for caption in captions]
        return tuple(captions)

    def _dealt(self, count: int) -> list[list[Instance]]:
        """Deal the instances into at most count parts of one to MAX_MENTIONED."""
        rest = self._rng.shuffled(self._instances)
        parts: list[list[Instance]] = []
        while rest and len(parts) < count:
            # With fewer now, the remaining parts could not take the rest.
            needed = -(-len(rest) // (count - len(parts)))
            wanted = max(self._rng.pick(_MENTIONED), needed)
            number = min(wanted, MAX_MENTIONED)
            parts.append(rest[:number])
            rest = rest[number:]
        return parts

    def _new_caption(self, mentioned: Sequence[Instance], earlier: Sequence[Caption]) -> Caption:
        said = {wording(caption) for caption in earlier}
        for _ in range(_ATTEMPTS):
            caption = self._caption(mentioned)
            if wording(caption) not in said:
                break
        return caption

    def _caption(self, mentioned: Sequence[Instance]) -> Caption:
        """Relate the largest instance to the others; without a relation to one, list them all."""
        first, *others = sorted(mentioned, key=lambda instance: -instance.area)
        related = [relation(first, other, self._image_size) for other in others]
        sides = [side for side in related if side is not None]
        opening = self._opening(mentioned)
        phrases = [*opening, self._named(first)]
        if len(sides) < len(others):
            for other in others:
                phrases += [Phrase("and"), self._named(other)]
        else:
            phrases += self._verb(first, _BEFORE_VERB[len(opening)])
            for position, (other, side) in enumerate(zip(others, sides, strict=True)):
                link = self._link(first, other, side)
                phrases += [Phrase(f"and {link}" if position else link), self._named(other)]
        return (*phrases, *self._where(mentioned))

    def _verb(self, instance: Instance, before: Sequence[str]) -> list[Phrase]:
        if not self._chance(_VERB):
            return []
        center = instance.doubled_center[1]
        height = _third(center, 2 * self._image_size, ("top", "middle", "bottom"))
        return [Phrase(self._rng.pick(before) + self._rng.pick(_VERBS[height]))]

    def _where(self, mentioned: Sequence[Instance]) -> list[Phrase]:
        """Say where a single instance is, its place or the background; of several, perhaps."""
        is_alone = len(mentioned) == 1
        if is_alone and self._chance(_PLACE):
            return [Phrase(self._place(mentioned[0]))]
        if is_alone or self._chance(_SETTING):
            setting = self._rng.pick(_SETTINGS[self._background])
            if setting.endswith("behind"):
                setting += " it" if is_alone else " them"
            return [Phrase(setting)]
        return []

    def _opening(self, mentioned: Sequence[Instance]) -> list[Phrase]:
        if len(mentioned) > 1 and self._chance(_COUNTED):
            return [Phrase(self._rng.pick(_COUNTS[len(self._instances)]))]
        if self._chance(_OPENING):
            return [Phrase(self._rng.pick(_OPENINGS))]
        return []

    def _named(self, instance: Instance) -> Phrase:
        words = [instance.shape]
        if self._chance(_COLOR):
            words.insert(0, instance.color)
        if self._chance(_SIZE):
            words.insert(0, instance.size)
        return Phrase(" ".join(["a", *words]), instance)

    def _with_synonyms(self, caption: Caption) -> Caption:
        phrases = []
        for text, instance in caption:
            if instance is not None:
                text = text.replace(instance.shape, self._rng.pick(SYNONYMS[instance.shape]))
            phrases.append(Phrase(text, instance))
        return tuple(phrases)

    def _link(self, first: Instance, other: Instance, side: str) -> str:
        is_near = _distance(first, other) * 100 < 2 * NEXT_TO * self._image_size
        if is_near and self._chance(_NEAR):
            return self._rng.pick(_NEXT)
        return self._rng.pick(_SIDES[side])

    def _place(self, instance: Instance) -> str:
        """Return where an instance is in the picture, by the centre of its box."""
        size = 2 * self._image_size
        x, y = instance.doubled_center
        height = _third(y, size, ("top", "", "bottom"))
        side = _third(x, size, ("left", "", "right"))
        if height:
            return f"at the {height} {side}".strip()
        return f"on the {side}" if side else "in the middle"

    def _chance(self, percent: int) -> bool:
        return self._rng.below(100) < percent


def relation(first: Instance, second: Instance, image_size: int) -> str | None:
    """Return the relation of two instances, along the axis on which they are farther apart.

    Returns:
        The relation, e.g. "left of", or None if the centres nearly coincide.
    """
    (x1, y1), (x2, y2) = first.doubled_center, second.doubled_center
    dx, dy = x1 - x2, y1 - y2
    if _distance(first, second) * 100 < 2 * MIN_DISTANCE * image_size:
        return None
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def _distance(first: Instance, second: Instance) -> int:
    """Return twice the distance of two centres along the axis on which they are farther apart."""
    (x1, y1), (x2, y2) = first.doubled_center, second.doubled_center
    return max(abs(x1 - x2), abs(y1 - y2))


def _third(position: int, size: int, words: tuple[str, str, str]) -> str:
    """Return the word for the start, the middle or the end of a side, where a position is."""
    if position * 100 < EDGE * size:
        return words[0]
    return words[2] if position * 100 > (100 - EDGE) * size else words[1]
