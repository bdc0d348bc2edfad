"""LocCa's texts as tokens: what is given, what is predicted, and what a tokenizer must have."""

import pytest

from tests.data.conftest import CAPTIONS
from virtex_det.data import SentencePieceTokenizer, train_tokenizer
from virtex_det.data.region_texts import RegionTexts, box_text, vocabulary_texts
from virtex_det.errors import UserError

BINS = 100
BOX = (0.25, 0.0, 0.505, 1.0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> SentencePieceTokenizer:
    path = tmp_path_factory.mktemp("regions") / "boxes.model"
    train_tokenizer([*CAPTIONS, *vocabulary_texts(BINS)], path, vocab_size=160)
    return SentencePieceTokenizer(path)


@pytest.fixture
def texts(tokenizer) -> RegionTexts:
    return RegionTexts(tokenizer, max_length=40, bins=BINS)


def read(tokenizer, text) -> tuple[str, str]:
    """Return a text and its answer, and see that both have their ends."""
    tokens, labels = text.tokens.tolist(), text.labels.tolist()
    assert (tokens[0], tokens[-1], labels[0], labels[-1]) == (1, 2, 0, 2)
    assert all(label in (0, token) for token, label in zip(tokens, labels, strict=True))
    assert labels == [0] * labels.count(0) + tokens[labels.count(0) :]
    return tokenizer.decode(tokens), tokenizer.decode(labels)


def test_a_caption_is_to_be_predicted_behind_its_prompt(tokenizer, texts):
    assert read(tokenizer, texts.caption("A small red star")) == (
        "cap: a small red star",
        "a small red star",
    )


def test_of_a_region_the_box_is_to_be_predicted_or_the_caption(tokenizer, texts):
    assert read(tokenizer, texts.referring("a star", BOX)) == (
        "aref: a star : 25 0 50 99",
        "25 0 50 99",
    )
    assert read(tokenizer, texts.grounded("a star", BOX)) == (
        "gcap: 25 0 50 99 : a star",
        "a star",
    )


@pytest.mark.parametrize("name", ["referring", "grounded"])
def test_a_long_text_is_cut_and_its_box_is_whole(tokenizer, name):
    texts = RegionTexts(tokenizer, max_length=22, bins=BINS)
    text = getattr(texts, name)(" ".join(CAPTIONS), BOX)
    whole, _ = read(tokenizer, text)
    assert len(text.tokens) == 22 and "25 0 50 99" in whole and " : " in whole


def test_a_long_caption_is_cut_with_its_prompt(tokenizer):
    texts = RegionTexts(tokenizer, max_length=22, bins=BINS)
    assert len(texts.caption(" ".join(CAPTIONS)).tokens) == 22


def test_numbers_are_whole_and_end_below_the_number_of_bins():
    assert box_text((0.0, 0.0999, 0.1, 1.0), bins=10) == "0 0 1 9"


def test_a_vocabulary_of_captions_alone_is_refused_with_how_to_build_one(tokenizer_file):
    with pytest.raises(UserError, match=r"no pieces for .*cap:.*0, 1, (?s:.*)--boxes N"):
        RegionTexts(SentencePieceTokenizer(tokenizer_file), max_length=40, bins=BINS)


def test_a_length_without_room_for_a_word_is_refused_with_the_length_to_set(tokenizer):
    with pytest.raises(UserError, match=r"MAX_LENGTH is 14, but .* up to (\d+) tokens\.\nSet it"):
        RegionTexts(tokenizer, max_length=14, bins=BINS)
