import itertools
import json
import sys

import pytest

from virtex_det.data import SentencePieceTokenizer, train_tokenizer
from virtex_det.data.concepts import (
    PARTS_OF_SPEECH,
    ConceptSet,
    build_concepts,
    caption_agreement,
)
from virtex_det.data.datasets.captions import load_coco_captions
from virtex_det.errors import UserError

CAPTIONS = [
    "A man is riding a brown horse.",
    "A woman riding a wave on a brown board",
    "The old man rides his horse in the parking lot",
    "a man drives his car",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Its pieces are the words of the captions, each several times; "parking" and "lot" are cut
    in pieces.
    """
    path = tmp_path_factory.mktemp("tokenizer") / "t.model"
    whole = "a man is riding brown horse woman wave on board the old rides his in drives car"
    train_tokenizer([whole] * 20, path, vocab_size=90)
    return SentencePieceTokenizer(path)


@pytest.fixture(scope="module")
def concepts(tokenizer):
    return build_concepts(CAPTIONS, tokenizer, PARTS_OF_SPEECH)


def words(concepts):
    return {concept.word: (concept.part_of_speech, concept.count) for concept in concepts.concepts}


def test_nouns_adjectives_and_verbs_are_found_and_counted(concepts):
    found = words(concepts)
    assert (
        found["man"] == ("noun", 3)
        and found["horse"] == ("noun", 2)
        and found["wave"] == ("noun", 1)
    )
    assert found["brown"] == ("adjective", 2) and found["old"] == ("adjective", 1)
    assert found["riding"] == ("verb", 2) and found["rides"] == found["drives"] == ("verb", 1)


def test_function_words_and_auxiliaries_are_not_concepts(concepts):
    assert not {"a", "the", "is", "his", "on", "in"} & set(words(concepts))


def test_the_most_frequent_come_first_and_ties_go_by_the_alphabet(concepts):
    found = concepts.concepts
    assert list(found) == sorted(found, key=lambda concept: (-concept.count, concept.word))
    assert [concept.word for concept in found[:4]] == ["man", "brown", "horse", "riding"]


def test_only_words_of_one_piece_are_concepts(concepts, tokenizer):
    assert len(tokenizer.encode("lot")) > 1 and "lot" not in words(concepts)
    assert all(
        tokenizer.encode(concept.word) == [concept.token_id] for concept in concepts.concepts
    )


def test_size_keeps_the_most_frequent(concepts, tokenizer):
    chosen = build_concepts(CAPTIONS, tokenizer, PARTS_OF_SPEECH, 3)
    assert chosen.concepts == concepts.concepts[:3]


def test_parts_of_speech_can_be_chosen(tokenizer):
    chosen = build_concepts(CAPTIONS, tokenizer, ["verb"])
    assert set(words(chosen)) == {"riding", "rides", "drives"} and chosen.parts_of_speech == (
        "verb",
    )


def test_a_word_has_its_most_frequent_part_of_speech(tokenizer):
    captions = ["a woman on the board", "the old board", "they board the car"]
    assert words(build_concepts(captions, tokenizer))["board"] == ("noun", 2)
    assert "board" not in words(build_concepts(captions, tokenizer, ["verb", "adjective"]))


def test_case_accents_and_repetition_count_the_same(tokenizer):
    assert words(build_concepts(["A MÀN", "a man", "a man"], tokenizer)) == {"man": ("noun", 3)}


@pytest.mark.parametrize(
    "caption", ["", "  ", "☃ 🙂", "男の人が馬に乗る", "...", "man's man's-man,man"]
)
def test_odd_captions_are_accepted(tokenizer, caption):
    assert words(build_concepts([caption, "a man"], tokenizer))["man"][0] == "noun"


def test_a_word_in_another_font_is_not_a_second_concept_of_the_same_piece(tokenizer):
    concepts = build_concepts(["a \U0001d40c\U0001d400\U0001d40d", "a man", "a horse"], tokenizer)
    assert {*words(concepts)} == {"man", "horse"}
    concepts.require_pieces(tokenizer)


@pytest.mark.parametrize("captions", [[], ["on the"]])
def test_captions_without_any_concept_are_an_error(tokenizer, captions):
    with pytest.raises(UserError, match="no noun or adjective or verb"):
        build_concepts(captions, tokenizer, PARTS_OF_SPEECH)


def test_nouns_are_chosen_by_default_and_captions_without_one_refused(tokenizer):
    assert {part for part, _ in words(build_concepts(CAPTIONS, tokenizer)).values()} == {"noun"}
    for parts in (["noun"], PARTS_OF_SPEECH):
        with pytest.raises(UserError, match="The captions have no noun"):
            build_concepts(["they are very old"], tokenizer, parts)


def test_a_concept_set_is_read_back_from_its_file(concepts, tmp_path):
    concepts.write(tmp_path / "new" / "concepts.json")
    assert ConceptSet.read(tmp_path / "new" / "concepts.json") == concepts
    first = json.loads((tmp_path / "new" / "concepts.json").read_text())["concepts"][0]
    assert first == {
        "word": "man",
        "part_of_speech": "noun",
        "count": 3,
        "token_id": concepts.concepts[0].token_id,
    }


def test_a_file_cut_short_is_an_error_that_says_how_to_build_one(concepts, tmp_path):
    path = tmp_path / "concepts.json"
    concepts.write(path)
    path.write_text(path.read_text()[:200])
    with pytest.raises(
        UserError, match=r"not a complete concept set(?s:.*)virtex-det data concepts"
    ):
        ConceptSet.read(path)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"concepts": []},
        {"concepts": [{"word": "man"}]},
        {"concepts": [{"word": "man", "part_of_speech": "noun", "count": 3, "token_id": "7"}]},
        {"concepts": [{"word": "man", "part_of_speech": "noun", "count": 3, "token_id": -7}]},
        {"concepts": None},
        {"tokenizer_sha256": None},
    ],
)
def test_a_file_of_another_form_is_an_error(concepts, tmp_path, change):
    path = tmp_path / "concepts.json"
    concepts.write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="is not a complete concept set"):
        ConceptSet.read(path)


@pytest.mark.parametrize("name", ["", "missing.json"])
def test_a_missing_file_is_an_error_that_names_it(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"'{name}'(?s:.*)virtex-det data concepts"):
        ConceptSet.read(name)


def test_another_tokenizer_is_refused(concepts, tokenizer):
    concepts.require_tokenizer(tokenizer.sha256)
    found = rf"sha256 is {tokenizer.sha256[:12]}\.\.\., this one's def"
    with pytest.raises(UserError, match=found):
        concepts.require_tokenizer("def")


def test_without_the_tagger_the_error_names_the_extra(tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "HanTa.HanoverTagger", None)
    with pytest.raises(UserError, match=r'pip install "virtex_det\[pretrain\]"'):
        build_concepts(CAPTIONS, tokenizer)


def test_real_captions_give_the_things_that_one_sees(samples, tmp_path):
    folder = samples / "coco_mini"
    dicts = load_coco_captions(
        folder / "annotations" / "captions_train2017.json", folder / "train2017"
    )
    captions = [caption for image in dicts for caption in image["captions"]]
    train_tokenizer(captions, tmp_path / "t.model", vocab_size=1500)
    tokenizer = SentencePieceTokenizer(tmp_path / "t.model")
    concepts = build_concepts(captions, tokenizer, PARTS_OF_SPEECH, 100)
    found = words(concepts)
    assert {found[word][0] for word in ("man", "woman", "table", "people", "dog", "kitchen")} == {
        "noun"
    }
    assert {found[word][0] for word in ("white", "large", "small", "black")} == {"adjective"}
    assert {found[word][0] for word in ("sitting", "standing", "holding")} == {"verb"}


def test_captions_in_another_language_get_a_warning(tmp_path, caplog):
    english = [f"a star of {number} rings on the table" for number in "abcdefghijklmnopqrst"]
    german = [
        f"ein Stern mit {number} Ringen auf dem Tisch star" for number in "abcdefghijklmnopqrst"
    ]
    train_tokenizer([*english, *german] * 9, tmp_path / "t.model", vocab_size=60)
    tokenizer = SentencePieceTokenizer(tmp_path / "t.model")
    for captions, warned in ((english, False), (german, True)):
        caplog.clear()
        build_concepts(captions, tokenizer)
        assert ("are they in English" in caplog.text) == warned


def test_agreement_is_cohens_kappa_between_two_captions_of_an_image():
    images = [["dog front", "dog"], ["cat", "front cat"], ["dog", "cat"], ["bird", "bird", "dog"]]
    # Each ordered pair of an image's captions is one item that two raters judge.
    pairs = [
        (first, second)
        for captions in images
        for first, second in itertools.permutations(captions, 2)
    ]
    agreement = caption_agreement(images)
    for word in ("dog", "cat", "bird", "front"):
        says = [(word in first.split(), word in second.split()) for first, second in pairs]
        observed = sum(first == second for first, second in says) / len(says)
        share = sum(first for first, _ in says) / len(says)
        by_chance = share**2 + (1 - share) ** 2
        assert agreement[word] == pytest.approx((observed - by_chance) / (1 - by_chance))


def test_a_caption_that_says_a_word_twice_agrees_no_more():
    assert caption_agreement([["dog dog", "a dog"], ["cat", "cat"]])["dog"] == 1


def test_a_word_of_every_caption_and_captions_without_a_second_one_tell_nothing():
    assert "a" not in caption_agreement([["a dog", "a dog"], ["a cat", "a cat"]])
    assert caption_agreement([["a dog"], ["a cat"], []]) == {}


def test_only_the_given_words_are_taken(tokenizer):
    assert {*words(build_concepts(CAPTIONS, tokenizer, words={"horse", "car", "riding"}))} == {
        "horse",
        "car",
    }
