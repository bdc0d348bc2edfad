"""The vocabulary: its size is what the tokenizer has, and its words are those of the captions."""

import pytest

from tests.tiny_bert import make_bert
from virtex_det.data.tokenizers import read_tokenizer
from virtex_det.data.vocabulary import check_known_words, vocabulary_size, with_vocabulary_size
from virtex_det.errors import UserError
from virtex_det.modeling import build_model


@pytest.fixture
def cfg(pretraining_cfg):
    return pretraining_cfg("MODEL.DEVICE", "cpu").clone()


def test_the_tokenizer_says_it(cfg, tmp_path):
    assert (cfg.MODEL.TEXTUAL.VOCAB_SIZE, vocabulary_size(cfg)) == (0, 240)
    assert build_model(cfg).textual.output.weight.shape[0] == 240
    cfg.defrost()
    cfg.INPUT.CAPTION.TOKENIZER = str(make_bert(tmp_path / "bert"))
    assert vocabulary_size(cfg) == 22


def test_a_config_that_says_another_is_refused_with_both(pretraining_cfg):
    cfg = pretraining_cfg("MODEL.TEXTUAL.VOCAB_SIZE", 90)
    with pytest.raises(
        UserError, match=r"VOCAB_SIZE is 90, but .*vocabulary\.model has 240(?s:.*)Leave"
    ):
        build_model(cfg)
    with pytest.raises(UserError, match="VOCAB_SIZE is 90"):
        with_vocabulary_size(cfg)


def test_one_that_says_the_same_is_fine(pretraining_cfg):
    assert vocabulary_size(pretraining_cfg("MODEL.TEXTUAL.VOCAB_SIZE", 240)) == 240


@pytest.mark.parametrize("source", ["", "nothing/here.model"])
def test_without_the_file_the_config_has_to_say_it(pretraining_cfg, source):
    assert (
        vocabulary_size(
            pretraining_cfg("INPUT.CAPTION.TOKENIZER", source, "MODEL.TEXTUAL.VOCAB_SIZE", 33)
        )
        == 33
    )
    with pytest.raises(UserError, match="(?s)Tokenizer file not found.*--vocab-size N"):
        build_model(pretraining_cfg("INPUT.CAPTION.TOKENIZER", source, "MODEL.DEVICE", "cpu"))


def test_a_run_keeps_it(cfg, detector_cfg):
    assert with_vocabulary_size(cfg).MODEL.TEXTUAL.VOCAB_SIZE == 240
    detector = detector_cfg("INPUT.CAPTION.TOKENIZER", "nothing/here.model")
    assert with_vocabulary_size(detector) is detector


def test_models_of_labels_and_clusters_need_no_tokenizer(pretraining_cfg):
    for architecture, mapper in (
        ("MultilabelClassificationModel", ""),
        ("TagPredictionModel", "ClusterMapper"),
    ):
        model = ("MODEL.META_ARCHITECTURE", architecture, "DATALOADER.MAPPER", mapper)
        files = "INPUT.CAPTION.CLUSTERS c.json INPUT.CAPTION.TOKENIZER nothing/here.model"
        cfg = pretraining_cfg(*model, *files.split())
        assert with_vocabulary_size(cfg) is cfg


def captioned(*captions):
    return [{"captions": [caption]} for caption in captions]


def test_captions_in_another_language_than_the_vocabularys_are_refused(vocabulary):
    tokenizer = read_tokenizer(str(vocabulary))
    check_known_words(tokenizer, [*captioned("a red circle"), {"captions": []}], "mine")
    with pytest.raises(UserError, match=r"data set mine: .* does not know 100% of the words .*κό"):
        check_known_words(tokenizer, captioned("κόκκινος κύκλος", "μπλε"), "mine")


def test_a_tenth_of_unknown_words_is_a_warning(vocabulary, caplog):
    tokenizer = read_tokenizer(str(vocabulary))
    check_known_words(tokenizer, captioned("a small red circle", "a κύκλος"), "mine")
    assert "does not know 17% of the words in captions, e.g. 'κύκλος'" in caplog.text
