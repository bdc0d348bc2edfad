import hashlib

import pytest

from tests.tiny_bert import make_bert
from virtex_det.data import SentencePieceTokenizer
from virtex_det.data.tokenizers import read_tokenizer
from virtex_det.data.wordpiece import WordPieceTokenizer
from virtex_det.errors import UserError


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    return make_bert(tmp_path_factory.mktemp("bert"))


def test_a_file_is_read_as_sentencepiece_and_a_folder_as_a_bert(tokenizer_file, bert, tmp_path):
    assert isinstance(read_tokenizer(str(tokenizer_file)), SentencePieceTokenizer)
    assert isinstance(read_tokenizer(str(bert)), WordPieceTokenizer)
    for missing in ("", str(tmp_path / "missing.model")):
        with pytest.raises(UserError, match="virtex-det data vocabulary"):
            read_tokenizer(missing)


def test_the_hash_of_a_sentencepiece_model_is_that_of_its_file(tokenizer_file):
    expected = hashlib.sha256(tokenizer_file.read_bytes()).hexdigest()
    assert read_tokenizer(str(tokenizer_file)).sha256 == expected


def test_the_hash_of_a_bert_is_that_of_its_pieces_and_not_of_its_folder(bert, tmp_path):
    same, other = (
        make_bert(tmp_path / "same", seed=1),
        make_bert(tmp_path / "other", words=("a", "dog", "cat")),
    )
    hashes = [read_tokenizer(str(folder)).sha256 for folder in (bert, same, other)]
    assert hashes[0] == hashes[1] != hashes[2]
