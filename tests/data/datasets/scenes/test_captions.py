import re

import pytest

from virtex_det.data.caption_statistics import caption_statistics
from virtex_det.data.datasets.scenes import SHAPES, Instance, draw_scene
from virtex_det.data.datasets.scenes.captions import (
    EDGE,
    MIN_DISTANCE,
    NEXT_TO,
    SYNONYMS,
    VOCABULARIES,
    CaptionWriter,
    relation,
    wording,
)
from virtex_det.data.datasets.scenes.drawing import COLORS
from virtex_det.data.datasets.scenes.rng import Rng

# An own reading of the grammar, so that a change in the writer cannot change what the words mean.
NOUN = rf"an? (?:(small|medium|large) )?(?:({'|'.join(COLORS)}) )?({'|'.join(SHAPES)})"
SIDES = {
    "left of": "left",
    "right of": "right",
    "above": "top",
    "over": "top",
    "below": "bottom",
    "under": "bottom",
    "beneath": "bottom",
    "next to": "near",
    "near": "near",
    "beside": "near",
}
SIDE = "|".join(sorted(SIDES, key=len, reverse=True))
COUNTS = {"two shapes": 2, "a pair of shapes": 2, "three shapes": 3, "a group of shapes": 3}
OPENING = f"(?:a picture of |there is |(?P<count>{'|'.join(COUNTS)}) with )?"
VERB = "(?: (?:is |that is )?(?P<verb>hanging|floating|placed|resting|sitting|standing|lying))?"
PLACE = (
    "at the (?P<corner>(?:top|bottom) (?:left|right))|at the (?P<height>top|bottom)|"
    "on the (?P<side>left|right)|in the (?P<middle>middle)"
)
EDGES_OF_VERBS = {
    **dict.fromkeys(("hanging", "floating"), "top"),
    **dict.fromkeys(("sitting", "standing", "lying"), "bottom"),
}
BACKGROUNDS = {
    "smooth": "smooth|wall|paper",
    "striped": "striped|stripes|lines",
    "checkered": "checkered|checks|checkerboard",
    "dotted": "dotted|dots|spots",
    "cloudy": "cloudy|clouds|smoke",
}
SETTING = (
    "on a sheet of (?P<paper>paper)|against a (?P<plain>wall)|"
    "on a wall with (?P<pattern>\\w+)|against a sky with (?P<sky>clouds)|"
    "on a (?P<adjective>\\w+) wall|against a (?P<cloudy>cloudy) sky|"
    "on a (?P<board>checkerboard)|with (?P<behind>\\w+) behind (?:it|them)"
)
WORDS_OF_SETTING = ("paper", "plain", "pattern", "sky", "adjective", "cloudy", "board", "behind")
RELATED = f"N{VERB}(?: (?:{SIDE}) N(?: and (?:{SIDE}) N)?)?"
CAPTION = f"{OPENING}(?:{RELATED}|N and N(?: and N)?)(?: (?:{PLACE}|{SETTING}))?"

# Statistics of the 1,190 captions of 238 images of COCO 2017; docs/scenes.md names the images.
COCO = {
    "words": 10.7,
    "nouns": 0.71,
    "adjectives": 0.13,
    "verbs": 0.16,
    "layout": 0.11,
    "colors": 0.16,
    "sizes": 0.10,
    "counts": 0.24,
    "agreement": 0.42,
}
# How far the scenes may be from them: one word, 5 points of a share, 20 of the agreement.
BOUNDS = dict.fromkeys(COCO, 0.05) | {"words": 1.0, "agreement": 0.2}


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(0, "train", index) for index in range(150)]


@pytest.fixture(scope="module")
def with_synonyms():
    return [draw_scene(0, "train", index, vocabulary="synonyms") for index in range(150)]


def _nouns(caption):
    return re.findall(NOUN, caption)


def _matching(noun, instances):
    size, color, shape = noun
    return [
        i for i in instances if i.shape == shape and size in ("", i.size) and color in ("", i.color)
    ]


def _center(instance):
    left, top, width, height = instance.box
    return left + width / 2, top + height / 2


def _stands(side, first, second, size):
    """Say whether the first lies on that side of the second by their centres alone."""
    (x1, y1), (x2, y2) = _center(first), _center(second)
    near = max(abs(x1 - x2), abs(y1 - y2)) < NEXT_TO / 100 * size
    return {"left": x1 < x2, "right": x1 > x2, "top": y1 < y2, "bottom": y1 > y2, "near": near}[
        side
    ]


def _edges(instance, size):
    """Return the words for the edges that the centre of an instance is near."""
    (x, y), low, high = _center(instance), EDGE / 100 * size, (1 - EDGE / 100) * size
    edges = {"left": x < low, "right": x > high, "top": y < low, "bottom": y > high}
    return {edge for edge, is_there in edges.items() if is_there}


def _read(scenes):
    """Yield each caption with its scene, and the match of the grammar with N for its nouns."""
    for scene in scenes:
        for caption in scene.captions:
            found = re.fullmatch(CAPTION, re.sub(NOUN, "N", caption))
            assert found, f"unread caption: {caption}"
            yield scene, caption, found


def _edges_of_first(scene, caption):
    """Return the edges near each instance that the first noun of a caption may mean."""
    there = _matching(_nouns(caption)[0], scene.instances)
    return [_edges(instance, len(scene.image)) for instance in there]


def test_every_noun_and_relation_is_true(scenes):
    relations = 0
    for scene, caption, found in _read(scenes):
        nouns = _nouns(caption)
        assert 1 <= len(nouns) <= 3
        assert all(_matching(noun, scene.instances) for noun in nouns), caption
        sides = [SIDES[side] for side in re.findall(f"({SIDE}) N", found.string)]
        for side, other in zip(sides, nouns[1:], strict=False):
            pairs = [
                (a, b)
                for a in _matching(nouns[0], scene.instances)
                for b in _matching(other, scene.instances)
            ]
            size = len(scene.image)
            assert any(_stands(side, a, b, size) for a, b in pairs if a is not b), caption
        relations += len(sides)
    assert relations > 200


def test_every_place_in_the_picture_is_true(scenes):
    places = 0
    for scene, caption, found in _read(scenes):
        if said := found["corner"] or found["height"] or found["side"] or found["middle"]:
            assert {*said.split()} - {"middle"} in _edges_of_first(scene, caption), caption
            places += 1
    assert places > 100


def test_every_background_is_that_of_the_scene(scenes):
    said = 0
    for scene, caption, found in _read(scenes):
        words = [found[name] for name in WORDS_OF_SETTING if found[name]]
        assert all(re.fullmatch(BACKGROUNDS[scene.background], word) for word in words), caption
        said += len(words)
    assert said > 150


def test_every_number_is_that_of_the_instances(scenes):
    counted = 0
    for scene, caption, found in _read(scenes):
        if said := found["count"]:
            assert COUNTS[said] == len(scene.instances), caption
            counted += 1
    assert counted > 100


def test_verbs_tell_high_from_low(scenes):
    verbs = 0
    for scene, caption, found in _read(scenes):
        if edge := EDGES_OF_VERBS.get(found["verb"]):
            assert any(edge in edges for edges in _edges_of_first(scene, caption)), caption
            verbs += 1
    assert verbs > 100


def test_every_instance_is_mentioned(scenes):
    for scene in scenes:
        nouns = [noun for caption in scene.captions for noun in _nouns(caption)]
        for instance in scene.instances:
            assert any(instance in _matching(noun, scene.instances) for noun in nouns)


def test_the_largest_comes_first(scenes):
    for scene in scenes:
        for caption in scene.captions:
            first, *others = (_matching(noun, scene.instances) for noun in _nouns(caption))
            largest = max(instance.area for instance in first)
            assert all(largest >= min(instance.area for instance in other) for other in others), (
                caption
            )


def test_captions_are_lower_case_words(scenes):
    assert all(
        re.fullmatch("[a-z]+( [a-z]+)*", caption) for scene in scenes for caption in scene.captions
    )


def test_the_captions_of_a_scene_differ(scenes):
    distinct = [len(set(scene.captions)) for scene in scenes]
    assert min(distinct) >= 4 and sum(distinct) > 4.9 * len(scenes)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_captions_have_the_statistics_of_cocos(vocabulary, scenes, with_synonyms):
    drawn = {"names": scenes, "synonyms": with_synonyms}[vocabulary]
    found = caption_statistics([scene.captions for scene in drawn])._asdict()
    far = {key: found[key] for key in COCO if not abs(found[key] - COCO[key]) <= BOUNDS[key]}
    assert not far


def test_relations_are_said_more_often_than_in_coco(scenes):
    # On purpose: they are what captions of drawn shapes can teach beyond the names.
    assert caption_statistics([scene.captions for scene in scenes]).sides > 0.5


def test_synonyms_share_no_word_with_the_names_of_the_classes(with_synonyms):
    words = {
        word for scene in with_synonyms for caption in scene.captions for word in caption.split()
    }
    assert not words & {*SHAPES}
    every = [word for synonyms in SYNONYMS.values() for word in synonyms]
    assert {*every} <= words and len({*every}) == len(every) == 2 * len(SHAPES)


def test_synonyms_change_no_other_word(scenes, with_synonyms):
    known = {word: shape for shape, words in SYNONYMS.items() for word in words}
    for scene, other in zip(scenes, with_synonyms, strict=True):
        assert (scene.image == other.image).all() and scene.instances == other.instances
        back = [
            " ".join(known.get(word, word) for word in caption.split())
            for caption in other.captions
        ]
        assert back == [*scene.captions]


@pytest.mark.parametrize("count", [1, 2, 9])
def test_as_many_captions_as_asked_for(count):
    assert len(draw_scene(captions_per_image=count).captions) == count


def test_two_captions_are_enough_to_mention_three_instances():
    shapes = ["circle", "square", "star"]
    instances = tuple(
        Instance(s, "red", "small", 100, (15 * k, 15 * k, 10, 10)) for k, s in enumerate(shapes)
    )
    for seed in range(20):
        writer = CaptionWriter(Rng(seed, ()), instances, "smooth", 96)
        captions = " ".join(map(wording, writer.compose(2)))
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
