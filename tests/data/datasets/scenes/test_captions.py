import re

import pytest

from virtex_det.data.datasets.scenes import Instance, draw_scene
from virtex_det.data.datasets.scenes.captions import (
    MIN_DISTANCE,
    compose_captions,
    relation,
    wording,
)
from virtex_det.data.datasets.scenes.rng import Rng

# An own reading of the grammar, so that a change in the writer cannot change what the words mean.
NOUN = r"a (small|medium|large) (\w+) (\w+)"
SIDE = "left of|right of|above|below"


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(0, "train", index) for index in range(150)]


def _matching(noun, instances):
    return [i for i in instances if (i.size, i.color, i.shape) == noun]


def _stands(side, first, second):
    """Say whether the first lies on that side of the second by their centres alone."""
    (x1, y1), (x2, y2) = ((b[0] + b[2] / 2, b[1] + b[3] / 2) for b in (first.box, second.box))
    return {"left of": x1 < x2, "right of": x1 > x2, "above": y1 < y2, "below": y1 > y2}[side]


def _claims(caption):
    """Return the nouns of a caption and its claims (side, first noun, second noun); raise where
    it cannot be read.
    """
    nouns = re.findall(NOUN, caption)
    skeleton = re.sub(NOUN, "N", caption)
    if re.fullmatch("N( and N)*", skeleton):
        return nouns, []
    assert re.fullmatch(f"N ({SIDE}) N( and ({SIDE}) N)?", skeleton), f"unread caption: {caption}"
    sides = re.findall(f"({SIDE}) N", skeleton)
    return nouns, [(side, nouns[0], other) for side, other in zip(sides, nouns[1:], strict=True)]


def test_every_noun_and_relation_is_true(scenes):
    relations = 0
    for scene in scenes:
        for caption in scene.captions:
            nouns, claims = _claims(caption)
            assert 1 <= len(nouns) <= 3
            assert all(_matching(noun, scene.instances) for noun in nouns), caption
            for side, first, second in claims:
                pairs = [
                    (a, b)
                    for a in _matching(first, scene.instances)
                    for b in _matching(second, scene.instances)
                ]
                assert any(_stands(side, a, b) for a, b in pairs if a is not b), caption
            relations += len(claims)
    assert relations > 200


def test_every_instance_is_mentioned(scenes):
    for scene in scenes:
        nouns = [noun for caption in scene.captions for noun in _claims(caption)[0]]
        for instance in scene.instances:
            assert any(instance in _matching(noun, scene.instances) for noun in nouns)


def test_the_largest_comes_first(scenes):
    for scene in scenes:
        for caption in scene.captions:
            first, *others = (_matching(noun, scene.instances) for noun in _claims(caption)[0])
            largest = max(instance.area for instance in first)
            assert all(largest >= min(instance.area for instance in other) for other in others), (
                caption
            )


def test_captions_are_lower_case_words(scenes):
    assert all(
        re.fullmatch("[a-z]+( [a-z]+)*", caption) for scene in scenes for caption in scene.captions
    )


def test_wording_varies(scenes):
    assert len({re.sub(NOUN, "N", caption) for scene in scenes for caption in scene.captions}) > 15
    # Of one shape there is one thing to say; of three there are a dozen.
    assert all(
        len(set(s.captions)) >= min(len(s.captions), 4) for s in scenes if len(s.instances) == 3
    )


@pytest.mark.parametrize("count", [1, 2, 9])
def test_as_many_captions_as_asked_for(count):
    assert len(draw_scene(captions_per_image=count).captions) == count


def test_two_captions_are_enough_to_mention_five_instances():
    shapes = ["circle", "square", "star", "heart", "ring"]
    instances = tuple(
        Instance(s, "red", "small", 100, (15 * k, 15 * k, 10, 10)) for k, s in enumerate(shapes)
    )
    for seed in range(20):
        captions = " ".join(map(wording, compose_captions(Rng(seed, ()), instances, 96, 2)))
        assert all(shape in captions for shape in shapes)


def _at(x, y):
    return Instance("circle", "red", "small", 100, (x, y, 10, 10))


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (_at(60, 45), "left of"),
        (_at(10, 45), "right of"),
        (_at(45, 70), "above"),
        (_at(35, 5), "below"),
        (_at(44, 43), None),
    ],
)
def test_relations_go_by_the_axis_of_greater_distance(second, expected):
    assert relation(_at(40, 40), second, 96) == expected


def test_centres_at_the_smallest_distance_have_a_relation():
    size = 100
    assert relation(_at(40, 40), _at(40 + MIN_DISTANCE, 40), size) == "left of"
    assert relation(_at(40, 40), _at(39 + MIN_DISTANCE, 40), size) is None
