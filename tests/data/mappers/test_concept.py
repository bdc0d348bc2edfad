import logging
from dataclasses import replace

import pytest
import torch

from tests.tiny_bert import make_bert
from virtex_det import get_cfg
from virtex_det.data import train_tokenizer
from virtex_det.data.concept_words import ConceptWords
from virtex_det.data.concepts import Concept, ConceptSet
from virtex_det.data.mappers.concept import ConceptMapper
from virtex_det.data.mappers.pretraining import PretrainingMapper
from virtex_det.data.tokenizers import read_tokenizer
from virtex_det.errors import UserError

WORDS = ("cat", "dog", "red", "left", "right", "star")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """One of either kind; "catfish" begins with the piece "cat" in both."""
    folder = tmp_path_factory.mktemp("tokenizers")
    train_tokenizer(
        ["a cat dog red left right star of on the sits"] * 20, folder / "t.model", vocab_size=60
    )
    return {"sentencepiece": str(folder / "t.model"), "wordpiece": str(make_bert(folder / "bert"))}


@pytest.fixture(params=["sentencepiece", "wordpiece"])
def source(request, tokenizers):
    return tokenizers[request.param]


def concept_set(source):
    tokenizer = read_tokenizer(source)
    concepts = [Concept(word, "noun", 9, *tokenizer.encode(word)) for word in WORDS]
    return ConceptSet(tokenizer.sha256, ("noun",), tuple(concepts))


@pytest.fixture
def make_mapper(source):
    """Makes mappers of the tokenizer under test."""

    def make(is_train=True, max_length=30, flip_prob=0.0, concept_masks=1, concepts=None):
        cfg = get_cfg()
        cfg.INPUT.FORMAT = "RGB"
        cfg.INPUT.CAPTION.CROP_SIZE = 16
        image_options = PretrainingMapper.from_config(cfg, is_train) | {"flip_prob": flip_prob}
        tokenizer = read_tokenizer(source)
        return ConceptMapper(
            tokenizer=tokenizer,
            max_length=max_length,
            concept_words=ConceptWords(concepts or concept_set(source), tokenizer),
            concept_masks=concept_masks,
            **image_options,
        )

    return make


@pytest.fixture
def with_captions(example):
    return lambda *captions, **changes: {**example, "captions": list(captions), **changes}


def masked_words(mapper, mapped):
    labels = mapped["masked_labels"]
    assert ((mapped["caption_tokens"] == mapper.tokenizer.mask_id) == (labels != 0)).all()
    return [mapper.tokenizer.decode([token]) for token in labels[labels != 0].tolist()]


def tags(mapped):
    return [WORDS[index] for index in mapped["tags"]]


def unmasked(mapped):
    return torch.where(
        mapped["masked_labels"] != 0, mapped["masked_labels"], mapped["caption_tokens"]
    ).tolist()


def test_one_concept_word_is_masked_and_all_are_tags(make_mapper, with_captions):
    mapper = make_mapper()
    mapped = mapper(with_captions("the cat sits on a red star of the cat"))
    [word] = masked_words(mapper, mapped)
    assert word in ("cat", "red", "star")
    assert (
        tags(mapped) == ["cat", "red", "star"]
        and mapped["tags"].dtype == mapped["masked_labels"].dtype == torch.int64
    )
    pieces = mapper.tokenizer.encode("the cat sits on a red star of the cat")
    assert unmasked(mapped) == [mapper.tokenizer.sos_id, *pieces, mapper.tokenizer.eos_id]


def test_each_concept_word_of_a_caption_has_its_turn(make_mapper, with_captions):
    mapper = make_mapper()
    found = [
        masked_words(mapper, mapper(with_captions("a cat on the dog of a star")))[0]
        for _ in range(60)
    ]
    assert set(found) == {"cat", "dog", "star"} and min(map(found.count, set(found))) > 8


def test_a_word_that_only_begins_like_a_concept_is_none(make_mapper, with_captions):
    mapper = make_mapper()
    assert mapper.tokenizer.encode("catfish")[0] == mapper.tokenizer.encode("cat")[0]
    for _ in range(5):
        mapped = mapper(with_captions("a catfish on the dog"))
        assert masked_words(mapper, mapped) == ["dog"] and tags(mapped) == ["dog"]


@pytest.mark.parametrize("caption", ["a cat.", "a cat, of the", "the cat", "a cat-", "A CAT"])
def test_marks_and_case_do_not_hide_a_concept(make_mapper, with_captions, caption):
    mapper = make_mapper()
    assert masked_words(mapper, mapper(with_captions(caption))) == ["cat"]


def test_a_caption_without_a_concept_gives_way_to_another_of_the_image(make_mapper, with_captions):
    mapper = make_mapper()
    image = with_captions("the of", "a dog", "on the", "a star")
    assert {masked_words(mapper, mapper(image))[0] for _ in range(40)} == {"dog", "star"}


def test_an_image_without_any_concept_has_nothing_masked(make_mapper, with_captions):
    mapper = make_mapper()
    mapped = mapper(with_captions("the of", "on a"))
    assert masked_words(mapper, mapped) == [] and len(mapped["tags"]) == 0
    assert len(mapped["masked_labels"]) == len(mapped["caption_tokens"]) > 2


def test_images_without_any_concept_are_counted_in_the_log(make_mapper, with_captions, caplog):
    images = [
        with_captions("the of", "on a"),
        with_captions("the of", "a cat"),
        with_captions("a catfish"),
    ]
    with caplog.at_level(logging.INFO, logger="virtex_det.data.mappers.concept"):
        make_mapper().log_coverage(images)
    assert "2 of 3 images have no concept word" in caplog.text


def test_counting_leaves_images_without_captions_to_the_error_that_names_them(
    make_mapper, example, caplog
):
    with caplog.at_level(logging.INFO, logger="virtex_det.data.mappers.concept"):
        make_mapper().log_coverage([{**example, "captions": []}, {"file_name": "a.jpg"}])
    assert "2 of 2 images" in caplog.text


def test_captions_without_any_concept_word_are_nothing_to_learn_from(make_mapper, with_captions):
    with pytest.raises(UserError, match=r"No caption of the 2 images has a word .* as cat, dog"):
        make_mapper().log_coverage([with_captions("the of"), with_captions("a catfish")])


def test_what_is_cut_off_is_neither_masked_nor_a_tag(make_mapper, with_captions):
    mapper = make_mapper(max_length=5)
    mapped = mapper(with_captions("the cat on dog star"))
    assert masked_words(mapper, mapped) == ["cat"] and tags(mapped) == ["cat"]


def test_a_word_cut_within_is_not_taken_for_the_concept_that_it_begins_like(
    make_mapper, with_captions
):
    mapper = make_mapper(max_length=5)
    mapped = mapper(with_captions("a dog catfish"))
    assert mapped["caption_tokens"][-2] == mapper.tokenizer.encode("cat")[0]
    assert masked_words(mapper, mapped) == ["dog"] and tags(mapped) == ["dog"]


def test_a_flip_exchanges_the_concepts_left_and_right(make_mapper, with_captions):
    mapper = make_mapper(flip_prob=1.0)
    mapped = mapper(with_captions("on the left"))
    assert masked_words(mapper, mapped) == ["right"] and tags(mapped) == ["right"]


def test_a_seed_fixes_caption_and_mask(make_mapper, with_captions):
    mapper, runs = make_mapper(), []
    for _ in range(2):
        torch.manual_seed(3)
        runs.append(
            [mapper(with_captions("a cat on a dog", "the red star of the left")) for _ in range(8)]
        )
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first["caption_tokens"], second["caption_tokens"])
        assert torch.equal(first["masked_labels"], second["masked_labels"])
    assert len({tuple(mapped["caption_tokens"].tolist()) for mapped in runs[0]}) > 2


def test_evaluation_masks_by_the_image_id_alone(make_mapper, with_captions):
    mapper = make_mapper(is_train=False)
    image = with_captions("the of", "a cat on a dog of a star", "a star")
    first, second = mapper(image), mapper(image)
    assert torch.equal(first["caption_tokens"], second["caption_tokens"]) and tags(first) == [
        "cat",
        "dog",
        "star",
    ]
    others = [masked_words(mapper, mapper({**image, "image_id": index}))[0] for index in range(20)]
    assert set(others) == {"cat", "dog", "star"}


@pytest.mark.parametrize("captions", [[], None])
def test_an_image_without_captions_is_an_error_that_names_it(make_mapper, example, captions):
    with pytest.raises(UserError, match=r"photo\.jpg"):
        make_mapper()({**example, "captions": captions})


@pytest.fixture
def cfg(tokenizers, tmp_path):
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.CAPTION.TOKENIZER = tokenizers["sentencepiece"]
    cfg.INPUT.CAPTION.CROP_SIZE = 16
    cfg.INPUT.CAPTION.CONCEPTS = str(tmp_path / "concepts.json")
    cfg.MODEL.TEXTUAL.VOCAB_SIZE = 60
    return cfg


def test_a_config_names_tokenizer_and_concepts(cfg, tokenizers, with_captions):
    concept_set(tokenizers["sentencepiece"]).write(cfg.INPUT.CAPTION.CONCEPTS)
    mapper = ConceptMapper(cfg, True)
    assert masked_words(mapper, mapper(with_captions("a cat"))) == ["cat"]


def test_concepts_of_another_tokenizer_are_refused(cfg, tokenizers):
    concept_set(tokenizers["wordpiece"]).write(cfg.INPUT.CAPTION.CONCEPTS)
    with pytest.raises(UserError, match="built with another tokenizer"):
        ConceptMapper(cfg, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_id": 10**6}, "'dog'.* token_id 1000000"),
        ({"token_id": 4}, "'dog'.* token_id 4; the tokenizer encodes it as"),
        ({"word": "Dog"}, "'Dog'.*\\n.*lower case"),
        ({"word": "catfish"}, "'catfish'.*\\n.*single token"),
        ({"word": "cat", "token_id": "cat"}, "'cat'.* as another concept has"),
    ],
)
def test_an_entry_that_no_caption_would_match_is_refused(cfg, tokenizers, change, message):
    whole = concept_set(tokenizers["sentencepiece"])
    cat, dog, *others = whole.concepts
    if change.get("token_id") == "cat":
        change = {**change, "token_id": cat.token_id}
    edited = replace(whole, concepts=(cat, replace(dog, **change), *others))
    edited.write(cfg.INPUT.CAPTION.CONCEPTS)
    with pytest.raises(UserError, match=message):
        ConceptMapper(cfg, True)


@pytest.mark.parametrize(("masks", "expected"), [(1, 1), (2, 2), (0, 3), (9, 3)])
def test_as_many_concepts_are_masked_as_asked_for(make_mapper, with_captions, masks, expected):
    entry = with_captions("a cat of the dog and a star")
    mapper = make_mapper(concept_masks=masks)
    masked = [masked_words(mapper, mapper(entry)) for _ in range(20)]
    assert {len(words) for words in masked} == {expected}
    assert {word for words in masked for word in words} == {"cat", "dog", "star"}
    assert tags(mapper(entry)) == ["cat", "dog", "star"]


def test_concepts_without_a_noun_are_a_warning(make_mapper, with_captions, source, caplog):
    known = concept_set(source)
    verbs = replace(
        known, concepts=tuple(replace(each, part_of_speech="verb") for each in known.concepts)
    )
    with caplog.at_level(logging.WARNING):
        make_mapper().log_coverage([with_captions("a cat")])
        assert not caplog.records
        make_mapper(concepts=verbs).log_coverage([with_captions("a cat")])
    assert "has no noun, only verbs" in caplog.text
    assert "virtex-det data concepts chooses nouns" in caplog.text
