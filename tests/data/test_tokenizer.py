import pickle
import sys

import pytest

from virtex_det.data import SentencePieceTokenizer, train_tokenizer
from virtex_det.errors import UserError

CAPTIONS = [
    "a small red star left of a large blue circle",
    "a big green square above a tiny yellow ring",
]


@pytest.fixture
def tokenizer(tokenizer_file):
    return SentencePieceTokenizer(tokenizer_file)


def test_special_pieces_have_the_published_ids(tokenizer):
    assert (
        tokenizer.unk_id,
        tokenizer.pad_id,
        tokenizer.sos_id,
        tokenizer.eos_id,
        tokenizer.mask_id,
    ) == (
        0,
        0,
        1,
        2,
        3,
    )
    assert tokenizer.encode("a §")[-1] == tokenizer.unk_id


def test_a_caption_survives_encoding_and_decoding(tokenizer):
    assert (
        tokenizer.decode(tokenizer.encode("a red star left of a circle"))
        == "a red star left of a circle"
    )


def test_encoding_adds_no_boundaries_and_stays_within_the_vocabulary(tokenizer):
    ids = tokenizer.encode("a small red star")
    assert min(ids) > tokenizer.mask_id and max(ids) < tokenizer.vocab_size == 60


def test_case_and_accents_make_no_difference(tokenizer):
    assert tokenizer.encode("A CAFÉ") == tokenizer.encode("a cafe")
    assert tokenizer.decode(tokenizer.encode("Café")) == "cafe"


def test_the_name_of_a_control_symbol_in_a_caption_is_text(tokenizer):
    assert not {1, 2, 3} & set(tokenizer.encode("a [SOS] star [MASK]"))


def test_decoding_leaves_out_boundaries_and_padding(tokenizer):
    ids = tokenizer.encode("a red star")
    assert tokenizer.decode([1, *ids, 2, 0, 0]) == "a red star"


def test_a_tokenizer_travels_to_worker_processes(tokenizer):
    assert pickle.loads(pickle.dumps(tokenizer)).encode("a star") == tokenizer.encode("a star")


def test_the_same_captions_give_the_same_file(tmp_path):
    for name in ("a", "b"):
        train_tokenizer(iter(CAPTIONS), tmp_path / name / "t.model", vocab_size=60)
    assert (tmp_path / "a/t.model").read_bytes() == (tmp_path / "b/t.model").read_bytes()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["t.model"]


def test_training_is_silent(tmp_path, capfd):
    train_tokenizer(CAPTIONS, tmp_path / "t.model", vocab_size=60)
    assert capfd.readouterr() == ("", "")


def test_too_few_captions_are_an_error_that_says_the_largest_size_that_works(tmp_path):
    with pytest.raises(UserError, match="10000 is too large") as error:
        train_tokenizer(CAPTIONS, tmp_path / "t.model")
    largest = int(str(error.value).split("--vocab-size ")[1].split()[0])
    assert not list(tmp_path.iterdir())
    train_tokenizer(CAPTIONS, tmp_path / "t.model", largest)
    assert SentencePieceTokenizer(tmp_path / "t.model").vocab_size == largest


def test_too_small_a_size_is_an_error_that_says_the_smallest(tmp_path):
    with pytest.raises(UserError, match=r"at least \d+"):
        train_tokenizer(CAPTIONS, tmp_path / "t.model", vocab_size=5)


@pytest.mark.parametrize("captions", [[], [""]])
def test_no_text_is_an_error(tmp_path, captions):
    with pytest.raises(UserError, match="captions are empty"):
        train_tokenizer(captions, tmp_path / "t.model", vocab_size=60)


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_missing_or_broken_file_is_an_error_that_says_how_to_make_one(tmp_path, content):
    path = tmp_path / "t.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"t\.model(?s:.*)virtex-det data vocabulary"):
        SentencePieceTokenizer(path)


def test_a_model_with_other_special_ids_is_an_error(tmp_path):
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS),
        model_prefix=str(tmp_path / "t"),
        vocab_size=60,
        model_type="bpe",
        minloglevel=2,
    )
    with pytest.raises(UserError, match=r"expected \[1, 2, 3\]"):
        SentencePieceTokenizer(tmp_path / "t.model")


def test_without_sentencepiece_the_error_names_the_extra(monkeypatch, tokenizer_file):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UserError, match=r'pip install "virtex_det\[pretrain\]"'):
        SentencePieceTokenizer(tokenizer_file)


@pytest.mark.parametrize("length", [4191, 4192, 50_000])
def test_long_captions_are_not_dropped_from_a_vocabulary(length, tmp_path):
    words = "zebra quilt "
    long = (words * (length // len(words) + 1))[:length]
    train_tokenizer([long, *CAPTIONS], tmp_path / "t.model", vocab_size=80)
    tokenizer = SentencePieceTokenizer(tmp_path / "t.model")
    assert tokenizer.unk_id not in tokenizer.encode("zebra quilt")


def test_captions_without_spaces_are_not_dropped_either(tmp_path):
    train_tokenizer(["一只狗" * 3000, *CAPTIONS], tmp_path / "t.model", vocab_size=60)
    assert SentencePieceTokenizer(tmp_path / "t.model").unk_id not in SentencePieceTokenizer(
        tmp_path / "t.model"
    ).encode("狗")


def test_a_cut_caption_gives_the_vocabulary_of_its_parts(tmp_path):
    sentences = [f"{'a big red star by the sea ' * 45}" for _ in range(3)]
    train_tokenizer(sentences, tmp_path / "parts.model", vocab_size=40)
    train_tokenizer(["".join(sentences)], tmp_path / "whole.model", vocab_size=40)
    parts, whole = (
        SentencePieceTokenizer(tmp_path / f"{name}.model") for name in ("parts", "whole")
    )
    assert parts.encode("a big red star by the sea") == whole.encode("a big red star by the sea")


def test_the_character_that_sentencepiece_keeps_for_itself_drops_no_caption(tmp_path):
    train_tokenizer(["zebra \u2585 quilt", *CAPTIONS], tmp_path / "t.model", vocab_size=60)
    tokenizer = SentencePieceTokenizer(tmp_path / "t.model")
    assert tokenizer.unk_id not in tokenizer.encode("zebra quilt")


@pytest.mark.parametrize("size", [-1, 0, 4, 2**31, 10**30, 60.5])
def test_a_size_that_no_vocabulary_has_is_refused_by_its_number(size, tmp_path):
    with pytest.raises(UserError, match=rf"A vocabulary cannot have {size} tokens"):
        train_tokenizer(["a nut"], tmp_path / "v.model", vocab_size=size)
    assert not list(tmp_path.iterdir())
