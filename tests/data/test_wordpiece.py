import pickle

import pytest

from tests.tiny_bert import make_bert
from virtex_det.data.wordpiece import WordPieceTokenizer
from virtex_det.errors import UserError


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    return make_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def tokenizer(bert):
    return WordPieceTokenizer(bert)


def test_special_tokens_are_those_of_the_vocabulary(tokenizer):
    ids = (
        tokenizer.pad_id,
        tokenizer.unk_id,
        tokenizer.sos_id,
        tokenizer.eos_id,
        tokenizer.mask_id,
    )
    assert ids == (0, 2, 3, 4, 5) and tokenizer.vocab_size == 22


def test_a_caption_becomes_its_word_pieces_without_boundaries(tokenizer):
    assert tokenizer.encode("A catfish, on the dog") == [6, 7, 8, 19, 14, 15, 9]
    assert tokenizer.encode("a zebra") == [6, tokenizer.unk_id]


def test_a_caption_is_the_sum_of_its_words(tokenizer):
    caption = "A red-star  cat, of the Café."
    assert tokenizer.encode(caption) == [
        piece for word in caption.split() for piece in tokenizer.encode(word)
    ]


def test_decoding_joins_pieces_and_leaves_out_special_tokens(tokenizer):
    assert tokenizer.decode([3, 6, 7, 8, 5, 4, 0, 0]) == "a catfish"


def test_case_and_accents_make_no_difference(tokenizer):
    assert tokenizer.encode("CAFÉ") == tokenizer.encode("cafe")


def test_the_name_of_a_special_token_in_a_caption_is_text(tokenizer):
    assert not {0, 3, 4, 5} & set(tokenizer.encode("a [MASK] [CLS] [PAD] cat [SEP]"))


def test_a_tokenizer_travels_to_worker_processes(tokenizer):
    assert pickle.loads(pickle.dumps(tokenizer)).encode("a star") == tokenizer.encode("a star")


@pytest.mark.parametrize("content", ["", "a\ncat\n", "[UNK]\n[PAD]\n[CLS]\n[SEP]\n[MASK]\na\n"])
def test_a_vocabulary_that_is_not_of_berts_form_is_an_error(tmp_path, content):
    (tmp_path / "vocab.txt").write_text(content)
    with pytest.raises(UserError, match=r"is not BERT's(?s:.*)Expected \[PAD\] with id 0"):
        WordPieceTokenizer(tmp_path)


@pytest.mark.parametrize(
    "name, content", [("vocab.txt", b"\xff\xfe\x00"), ("tokenizer.json", b'{"model":')]
)
def test_a_broken_vocabulary_is_an_error_that_names_the_folder(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=str(tmp_path)):
        WordPieceTokenizer(tmp_path)
