import re
from pathlib import Path

import pytest

from virtex_det.data.caption_statistics import TOP_WORDS, caption_statistics, statistics_table
from virtex_det.data.datasets import draw_scene

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_what_captions_name_is_counted_by_caption():
    captions = [
        ["A large dog on a sofa", "a black dog"],
        ["two men holding a red, red kite", "some people beside a tree"],
    ]
    found = caption_statistics(captions)
    assert (found.images, found.captions, found.words) == (2, 4, 5.25)
    assert (found.colors, found.sizes, found.counts) == (0.5, 0.25, 0.5)
    assert (found.places, found.sides) == (0.5, 0.25)


def test_parts_of_speech_are_shares_of_the_occurrences_of_concept_words():
    found = caption_statistics([["a man riding a brown horse", "a man on a horse"]])
    assert (found.nouns, found.adjectives, found.verbs) == (4 / 6, 1 / 6, 1 / 6)


def test_only_frequent_words_are_concept_words():
    # Made-up words end in "ing", so that the tagger takes them for verbs.
    words = [f"{chr(97 + k // 26)}{chr(97 + k % 26)}mping" for k in range(TOP_WORDS)]
    captions = [f"a man is {word} a horse" for word in words]
    assert caption_statistics([captions * 2]).adjectives == 0
    more = [*captions * 2, "a brown horse"]
    assert caption_statistics([more]).adjectives == 0


def test_agreement_is_of_nouns_and_of_every_pair_both_ways():
    found = caption_statistics([["a dog on a sofa", "a dog", "the red sofa with a dog and a cat"]])
    # dog, sofa / dog / sofa, dog, cat
    assert found.agreement == pytest.approx((1 / 2 + 1 + 1 + 1 + 2 / 3 + 1 / 3) / 6)


@pytest.mark.parametrize("captions", [[], [[]], [["..."]]])
def test_captions_without_words_give_zeros(captions):
    assert caption_statistics(captions)[2:] == (0,) * 11


def test_a_table_has_a_column_for_each_set():
    found = caption_statistics([["a red dog", "a dog"]])
    lines = statistics_table({"mine": found, "yours": found}).splitlines()
    assert lines[0] == "|  | mine | yours |" and lines[1] == "| --- | --- | --- |"
    assert "| captions that name a colour | 50 % | 50 % |" in lines
    assert "| words in a caption | 2.5 | 2.5 |" in lines
    assert statistics_table({"a|b": found}).startswith("|  | a\\|b |\n")


def test_the_page_has_what_the_scenes_give():
    table = re.search(r"\n(\| +\| COCO.*?)\n\n", (DOCS / "scenes.md").read_text(), re.DOTALL)[1]
    captions = {}
    for vocabulary in ("names", "synonyms"):
        scenes = [draw_scene(0, "val", index, vocabulary=vocabulary) for index in range(200)]
        captions[vocabulary] = caption_statistics([scene.captions for scene in scenes])
    expected = [line.split(" | ", 1) for line in statistics_table(captions).splitlines()[2:]]
    found = [line.split(" | ", 3) for line in table.splitlines()[2:]]
    assert [[title, scenes] for title, _, _, scenes in found] == expected
