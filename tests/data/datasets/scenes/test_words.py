import re

import pytest

from virtex_det.data.datasets.scenes import Instance, draw_scene
from virtex_det.data.datasets.scenes.dice import Dice
from virtex_det.data.datasets.scenes.words import MIN_DISTANCE, relation, write_captions

# An own reading of the grammar, so that a change in the writer cannot change what the words mean.
SIZES = {"small": "small", "little": "small", "medium": "medium", "large": "large", "big": "large"}
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5}
NOUN = rf"a ({'|'.join(SIZES)}) (\w+) (\w+)"
SIDES = {
    "left of": "left", "to the left of": "left", "to its left": "left", "on its left": "left",
    "right of": "right", "to the right of": "right", "to its right": "right", "on its right": "right",
    "above": "above", "above it": "above",
    "below": "below", "under": "below", "below it": "below", "under it": "below",
}  # fmt: skip
SIDE = "|".join(sorted((side for side in SIDES if "it" not in side), key=len, reverse=True))
BACK = "|".join(side for side in SIDES if "it" in side)


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(0, "train", index) for index in range(150)]


def _matching(noun, instances):
    size, color, shape = noun
    return [i for i in instances if (i.size, i.color, i.shape) == (SIZES[size], color, shape)]


def _stands(side, first, second):
    """Say whether the first lies on that side of the second by their centres alone."""
    (x1, y1), (x2, y2) = ((b[0] + b[2] / 2, b[1] + b[3] / 2) for b in (first.box, second.box))
    return {"left": x1 < x2, "right": x1 > x2, "above": y1 < y2, "below": y1 > y2}[side]


def _claims(caption):
    """Return the nouns of a caption and its claims (side, first noun, second noun); raise where it cannot be read."""
    core = re.sub(r" on a \w+ background$", "", re.sub("^(there (is|are)|a picture of|we see) ", "", caption))
    nouns = re.findall(NOUN, core)
    skeleton = re.sub(NOUN, "N", core)
    if re.fullmatch("N( and N)*", skeleton):
        return nouns, []
    if match := re.fullmatch(f"N with N ({BACK})", skeleton):
        return nouns, [(SIDES[match[1]], nouns[1], nouns[0])]
    if re.fullmatch(f"N ({SIDE}) N( and ({SIDE}) N)?", skeleton):
        sides = re.findall(f"({SIDE}) N", skeleton)
        return nouns, [(SIDES[side], nouns[0], other) for side, other in zip(sides, nouns[1:], strict=True)]
    raise AssertionError(f"unread caption: {caption}")


def _is_count(caption):
    return any(word in caption.split() for word in NUMBERS)


def _all_captions(scenes, counting):
    return [(s, caption) for s in scenes for caption in s.captions if _is_count(caption) == counting]


def test_every_noun_and_relation_is_true(scenes):
    relations = 0
    for scene, caption in _all_captions(scenes, counting=False):
        nouns, claims = _claims(caption)
        assert 1 <= len(nouns) <= 3
        assert all(_matching(noun, scene.instances) for noun in nouns), caption
        for side, first, second in claims:
            pairs = [(a, b) for a in _matching(first, scene.instances) for b in _matching(second, scene.instances)]
            assert any(_stands(side, a, b) for a, b in pairs if a is not b), caption
        relations += len(claims)
    assert relations > 200


def test_every_count_is_exact(scenes):
    captions = _all_captions(scenes, counting=True)
    for scene, caption in captions:
        number, noun = re.search(rf"({'|'.join(NUMBERS)}) ((?:\w+ )?\w+s)\b", caption).groups()
        *color, plural = noun.split()
        shape = None if plural == "shapes" else {"crosses": "cross"}.get(plural, plural[:-1])
        counted = [i for i in scene.instances if shape in (None, i.shape) and color in ([], [i.color])]
        assert len(counted) == NUMBERS[number], caption
        assert all(_matching(noun, scene.instances) for noun in re.findall(NOUN, caption)), caption
    assert len(captions) > 30


def test_every_instance_is_mentioned(scenes):
    for scene in scenes:
        captions = [caption for caption in scene.captions if not _is_count(caption)]
        nouns = [noun for caption in captions for noun in _claims(caption)[0]]
        for instance in scene.instances:
            assert any(instance in _matching(noun, scene.instances) for noun in nouns)


def test_named_backgrounds_are_the_scenes(scenes):
    named = [(s, re.search(r"on a (\w+) background$", c)) for s in scenes for c in s.captions]
    found = [(scene, match[1]) for scene, match in named if match]
    assert found and all(scene.background == word for scene, word in found)


def test_captions_are_lower_case_words(scenes):
    assert all(re.fullmatch("[a-z]+( [a-z]+)*", caption) for scene in scenes for caption in scene.captions)


def test_wording_varies(scenes):
    skeletons = {re.sub(NOUN, "N", caption) for scene in scenes for caption in scene.captions}
    assert len(skeletons) > 60
    repeated = sum(len(scene.captions) - len(set(scene.captions)) for scene in scenes)
    assert repeated < 0.03 * sum(len(scene.captions) for scene in scenes)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_as_many_captions_as_asked_for(count):
    assert len(draw_scene(captions_per_image=count).captions) == count


def test_two_captions_are_enough_to_mention_five_instances():
    shapes = ["circle", "square", "star", "heart", "ring"]
    instances = tuple(Instance(s, "red", "small", 100, (15 * k, 15 * k, 10, 10)) for k, s in enumerate(shapes))
    for seed in range(20):
        captions = " ".join(write_captions(Dice(seed, ()), instances, "smooth", 96, 2))
        assert all(shape in captions for shape in shapes)


def _at(x, y):
    return Instance("circle", "red", "small", 100, (x, y, 10, 10))


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (_at(60, 45), "left"),
        (_at(10, 45), "right"),
        (_at(45, 70), "above"),
        (_at(35, 5), "below"),
        (_at(44, 43), None),
    ],
)
def test_relations_go_by_the_axis_of_greater_distance(second, expected):
    assert relation(_at(40, 40), second, 96) == expected


def test_centres_at_the_smallest_distance_have_a_relation():
    size = 100
    assert relation(_at(40, 40), _at(40 + MIN_DISTANCE, 40), size) == "left"
    assert relation(_at(40, 40), _at(39 + MIN_DISTANCE, 40), size) is None
